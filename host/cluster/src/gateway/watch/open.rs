//! The open watches of one guest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::informer::{WatchEnd, Watcher};

/// Watches that a guest may have open. Default 64: a controller has a handful, and each costs some KiB and, while it is not
/// read, an entry for each object that changes.
pub(crate) const MAX_WATCHES: usize = 64;

/// What all watches of a guest share.
pub(crate) struct Watches {
    places: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Watcher>>>,
    next: AtomicU64,
    awake: AtomicBool,
    access: watch::Sender<()>,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_WATCHES)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            awake: AtomicBool::new(false),
            access: watch::channel(()).0,
        }
    }
}

impl Watches {
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    pub(super) fn add(&self, watcher: Arc<Watcher>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, watcher);
        id
    }

    pub(super) fn remove(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    pub(super) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Acquire)
    }

    /// Whether the guest is awake. One that wakes is told how far its streams have come.
    pub(crate) fn set_awake(&self, awake: bool) {
        let was_awake = self.awake.swap(awake, Ordering::AcqRel);
        if awake && !was_awake {
            self.open.lock().values().for_each(|watcher| watcher.wake());
        }
    }

    /// What the guest may do has changed.
    pub(crate) fn recheck(&self) {
        self.access.send_replace(());
    }

    pub(super) fn access_changed(&self) -> watch::Receiver<()> {
        self.access.subscribe()
    }

    /// The guest is gone.
    pub(crate) fn end(&self) {
        self.open.lock().values().for_each(|watcher| watcher.end(WatchEnd::Closed));
    }
}
