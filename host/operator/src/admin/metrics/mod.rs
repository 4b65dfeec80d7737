//! What the host measures of its guests, under the names that users of controllers know.
//!
//! All there is of one guest is one struct, made with its first event and dropped with the guest: updates touch a few atomic
//! numbers, a guest that never ran has no series of its own but its state, and no series outlives its guest.

mod collector;
mod guest;
mod histogram;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use wasm_operator_core::dispatch::{Completion, Job, SleepReason, Snapshot, Time, WakeReason};

use crate::pool::Found;
use guest::{Codes, GuestNumbers};

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reconciled {
    /// Nothing to do before the next change.
    Success,
    /// Again after this time.
    RequeueAfter(Duration),
    /// The guest failed and asks for another attempt.
    Retry,
    /// The guest failed and asks for another attempt after this time.
    RetryAfter(Duration),
    /// The guest failed and asks for none.
    Terminal,
    /// A trap, a broken limit, or no instance to be had.
    Broken,
}

impl From<Reconciled> for Completion {
    fn from(reconciled: Reconciled) -> Self {
        match reconciled {
            Reconciled::Success => Self::Done,
            Reconciled::RequeueAfter(after) => Self::RequeueAfter(after),
            Reconciled::Retry => Self::Retry,
            Reconciled::RetryAfter(after) => Self::RetryAfter(after),
            Reconciled::Terminal => Self::Terminal,
            Reconciled::Broken => Self::Broken,
        }
    }
}

/// A guest as the scheduler knows it when metrics are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    /// The guest's name.
    pub(crate) guest: Arc<str>,
    /// Its `concurrency`.
    pub(crate) concurrency: u32,
    /// What the scheduler knows.
    pub(crate) snapshot: Snapshot,
}

type Source = Box<dyn Fn() -> Vec<Current> + Send + Sync>;

/// The metrics of all guests. A handle: clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    guests: RwLock<BTreeMap<Arc<str>, Arc<GuestNumbers>>>,
    source: RwLock<Option<Source>>,
    disk: RwLock<Option<Box<dyn Fn() -> u64 + Send + Sync>>>,
    /// Answers of the front door to callers that did not come as far as a guest.
    not_admitted: Codes,
}

/// The numbers of a request's guest. They are lost if the guest is removed meanwhile.
pub(crate) struct RequestNumbers(Arc<GuestNumbers>);

impl RequestNumbers {
    /// The request was answered with this status code, after this time.
    pub(crate) fn ended(&self, code: u16, took: Duration) {
        self.0.codes.add(code);
        self.0.request_time.observe(took);
    }
}

impl Metrics {
    /// Metrics that `registry` shows, with those of the process.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(collector::Guests(metrics.clone())));
        registry.register_collector(Box::new(process::Process));
        metrics
    }

    /// Where queues and states are asked for each time that metrics are: quiet guests then cost nothing in between.
    /// Called on the thread of the admin endpoint; must not block.
    pub(crate) fn set_source(&self, source: impl Fn() -> Vec<Current> + Send + Sync + 'static) {
        *self.0.source.write() = Some(Box::new(source));
    }

    fn guest(&self, name: &str) -> Arc<GuestNumbers> {
        if let Some(guest) = self.0.guests.read().get(name) {
            return Arc::clone(guest);
        }
        Arc::clone(self.0.guests.write().entry(name.into()).or_default())
    }

    /// A reconcile begins. `now` is the scheduler's time.
    pub(crate) fn started(&self, guest: &str, job: &Job, now: Time) {
        self.guest(guest).queued.observe(now.since(job.queued));
    }

    /// A reconcile has ended.
    pub(crate) fn finished(&self, guest: &str, result: Reconciled, took: Duration) {
        self.guest(guest).finished(result, took);
    }

    /// A guest got an instance that it did not have. `reason` is None where another run woke it.
    pub(crate) fn woke(&self, guest: &str, reason: Option<WakeReason>, found: Found, took: Duration) {
        self.guest(guest).woke(reason, found, took);
    }

    /// A guest's component had to be compiled, which took so long.
    pub(crate) fn compiled(&self, guest: &str, took: Duration) {
        self.guest(guest).set_compile_time(took);
    }

    /// A guest's instances were dropped.
    pub(crate) fn slept(&self, guest: &str, reason: SleepReason) {
        self.guest(guest).slept(reason);
    }

    /// A program's memory was written to disk: so many bytes of it, in this time.
    pub(crate) fn hibernated(&self, guest: &str, bytes: u64, took: Duration) {
        self.guest(guest).hibernated(bytes, took);
    }

    /// The contexts of a hibernated program are on disk as well: so many bytes.
    pub(crate) fn contexts_hibernated(&self, guest: &str, bytes: u64) {
        self.guest(guest).contexts_hibernated(bytes);
    }

    /// A program that was woken from disk sends its first request, so long after its wake.
    pub(crate) fn first_request(&self, guest: &str, took: Duration) {
        self.guest(guest).first_request.observe(took);
    }

    /// What a hibernated program most likely needs is read ahead of a predicted event or a timer: so many bytes.
    pub(crate) fn read_ahead(&self, guest: &str, bytes: u64) {
        self.guest(guest).read_ahead(bytes);
    }

    /// A program could not be hibernated.
    pub(crate) fn not_hibernated(&self, guest: &str) {
        self.guest(guest).not_hibernated();
    }

    /// Where to read how many bytes all hibernated programs take on disk.
    pub(crate) fn set_disk(&self, bytes: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.0.disk.write() = Some(Box::new(bytes));
    }

    /// A guest broke off; `kind` is the engine's word for it.
    pub(crate) fn trapped(&self, guest: &str, kind: &'static str) {
        self.guest(guest).trapped(kind);
    }

    /// What the guest's instances hold at the moment, in bytes of linear memory.
    pub(crate) fn memory(&self, guest: &str, bytes: u64) {
        self.guest(guest).set_memory(bytes);
    }

    /// A request for a guest begins to be served, or is refused.
    pub(crate) fn request(&self, guest: &str) -> RequestNumbers {
        RequestNumbers(self.guest(guest))
    }

    /// A caller at the front door was not let in, or asked for no guest.
    pub(crate) fn not_admitted(&self, code: u16) {
        self.0.not_admitted.add(code);
    }

    /// A guest is gone, and its series with it.
    pub(crate) fn removed(&self, guest: &str) {
        self.0.guests.write().remove(guest);
    }
}

#[cfg(test)]
mod tests;
