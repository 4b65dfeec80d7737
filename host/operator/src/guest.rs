//! One guest at run time: the version that runs, the one that waits to take its place, and its subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use wasm_operator_config::GuestSpec;
use wasm_operator_core::dispatch::GuestId;

use crate::host::Host;
use crate::revision::{Active, Fingerprint, Refusal, Revision};

/// A guest of the configuration.
pub(crate) struct Guest {
    pub(crate) id: GuestId,
    pub(crate) name: Arc<str>,
    /// As configured; what runs may be older while a change is being prepared.
    spec: Mutex<GuestSpec>,
    /// Counts the changes, so that the preparation of an outdated one ends.
    generation: AtomicU64,
    active: RwLock<Option<Arc<Active>>>,
    next: Mutex<Option<Revision>>,
    /// Someone waits for the events of its own writes.
    awaits_echo: AtomicBool,
    /// Of the last component that could not be made to run: it is not tried again before the file changes.
    refused: Mutex<Option<Fingerprint>>,
}

impl Guest {
    pub(crate) fn new(id: GuestId, spec: GuestSpec) -> Self {
        Self {
            id,
            name: spec.name.as_str().into(),
            spec: Mutex::new(spec),
            generation: AtomicU64::new(0),
            active: RwLock::new(None),
            next: Mutex::new(None),
            awaits_echo: AtomicBool::new(false),
            refused: Mutex::new(None),
        }
    }

    /// Whether nobody has begun to wait for the events of the guest's own writes.
    pub(crate) fn begins_to_await_echo(&self) -> bool {
        !self.awaits_echo.swap(true, Ordering::SeqCst)
    }

    /// The events have come.
    pub(crate) fn has_echo(&self) {
        self.awaits_echo.store(false, Ordering::SeqCst);
    }

    pub(crate) fn spec(&self) -> GuestSpec {
        self.spec.lock().clone()
    }

    /// What holds for the requests that it serves.
    pub(crate) fn serve(&self) -> wasm_operator_config::Serve {
        self.spec.lock().serve.clone()
    }

    /// How many instances it may have.
    pub(crate) fn concurrency(&self) -> usize {
        usize::try_from(self.spec.lock().concurrency).unwrap_or(usize::MAX)
    }

    /// Takes a new configuration and returns its number.
    pub(crate) fn configure(&self, spec: GuestSpec) -> u64 {
        *self.spec.lock() = spec;
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Takes a configuration that differs in scheduling only: what is being prepared goes on.
    pub(crate) fn reschedule(&self, spec: GuestSpec) {
        *self.spec.lock() = spec;
    }

    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) == generation
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Ends whatever is being prepared, because the guest was removed.
    pub(crate) fn abandon(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.next.lock().take();
    }

    pub(crate) fn active(&self) -> Option<Arc<Active>> {
        self.active.read().clone()
    }

    /// Keeps a prepared version until the running reconciles have ended.
    pub(crate) fn stage(&self, revision: Revision) {
        *self.next.lock() = Some(revision);
    }

    pub(crate) fn staged(&self) -> Option<Revision> {
        self.next.lock().take()
    }

    /// Has a version take over: it watches before the old one stops to, so that their streams stay open.
    pub(crate) fn activate(&self, host: &Host, revision: Revision) -> Result<(), Refusal> {
        let active = revision.activate(host, self.id)?;
        let old = self.active.write().replace(Arc::new(active));
        drop(old);
        *self.refused.lock() = None;
        Ok(())
    }

    /// Drops everything.
    pub(crate) fn retire(&self) {
        let old = self.active.write().take();
        drop(old);
    }

    /// Notes that the guest does not run as configured.
    pub(crate) fn refuse(&self, files: Fingerprint) {
        *self.refused.lock() = Some(files);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.lock().is_some()
    }

    /// Whether one of its files is another one than what runs, and than what was refused.
    pub(crate) fn has_new_files(&self, host: &Host) -> bool {
        let now = Fingerprint::of(&self.spec.lock(), &host.options.directory);
        match &*self.refused.lock() {
            Some(refused) => *refused != now,
            None => self.active.read().as_ref().is_some_and(|active| active.fingerprint != now),
        }
    }
}
