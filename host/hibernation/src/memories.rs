//! The memories of one guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::PAGE_BYTES;
use crate::contexts::{self, Instantiation};
use crate::directory::Hibernation;
use crate::error::HibernateError;
use crate::memory::Memory;
use crate::turn::{Exclusive, InTurn, Turn};

/// All linear memories of one guest. A handle: clones share everything. Holds neither the guest nor its memories.
#[derive(Clone)]
pub struct Memories(Arc<Inner>);

struct Inner {
    /// None for a guest that is never hibernated.
    hibernation: Option<Hibernation>,
    turn: Turn,
    /// Since the last hibernation, nothing was read ahead.
    sleeps: AtomicBool,
    /// In the order in which they were made.
    list: Mutex<Vec<Weak<Memory>>>,
    /// Where its instances' contexts are.
    contexts: Mutex<Weak<Memory>>,
}

/// What a hibernation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Pages of 4 KiB that were written.
    pub pages: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Wall time from the first look at the memory to the last page that was forgotten, in microseconds.
    pub microseconds: u64,
}

/// What a guest holds of the machine's memory in its linear memories, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Its own: the next hibernation writes this much.
    pub private: u64,
    /// Of files, which the kernel can take away at any time; images that are shared count for each guest.
    pub file: u64,
}

impl Resident {
    /// Everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.private.saturating_add(self.file)
    }
}

impl Memories {
    pub(crate) fn new(hibernation: Option<Hibernation>) -> Self {
        Self(Arc::new(Inner {
            hibernation,
            turn: Turn::default(),
            sleeps: AtomicBool::new(false),
            list: Mutex::default(),
            contexts: Mutex::default(),
        }))
    }

    /// For a guest that never reaches the disk.
    #[must_use]
    pub fn never_hibernated() -> Self {
        Self::new(None)
    }

    /// Wraps whatever runs the guest or looks into its memory: instantiation, calls, and its long-running future. Memories
    /// that are made meanwhile belong to this guest. The future is polled only while no hibernation is under way.
    ///
    /// A guest's store must not be used outside of this, and be dropped [in its turn](Self::in_turn).
    pub fn exclusive<F: Future>(&self, future: F) -> Exclusive<F> {
        Exclusive::new(self.clone(), future)
    }

    /// Holds what touches the guest's memory or contexts when it is dropped, such as its store.
    pub fn in_turn<T>(&self, value: T) -> InTurn<T> {
        InTurn::new(self.clone(), value)
    }

    /// Wraps an instantiation, and nothing but that, inside of [`exclusive`](Self::exclusive): the instances' contexts and tables
    /// are hibernated as well, where the process has this crate's [`Allocator`](crate::Allocator). From the moment at which
    /// the guest's code runs, the store's hook has to call [`guest_runs`](crate::guest_runs).
    pub fn instantiate<F: Future>(&self, future: F) -> Instantiation<F> {
        // Without room they are where they would be otherwise.
        let room = self.0.hibernation.as_ref().and_then(|_| contexts::room().ok());
        if let Some(room) = &room {
            *self.0.contexts.lock() = Arc::downgrade(room);
        }
        Instantiation::new(room, future)
    }

    pub(crate) fn turn(&self) -> &Turn {
        &self.0.turn
    }

    /// Called before the guest runs. All that it needed the last time is read at once, and not page by page.
    pub(crate) fn wake(&self) {
        if self.0.sleeps.load(Ordering::Relaxed) {
            // Without it the guest is slower, and that is all.
            let _ = self.prefetch();
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn add(&self, memory: &Arc<Memory>) {
        let mut list = self.0.list.lock();
        list.retain(|memory| memory.strong_count() > 0);
        list.push(Arc::downgrade(memory));
    }

    fn linear(&self) -> Vec<Arc<Memory>> {
        self.0.list.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn contexts(&self) -> Option<Arc<Memory>> {
        self.0.contexts.lock().upgrade()
    }

    fn hibernation(&self) -> Result<&Hibernation, HibernateError> {
        self.0.hibernation.as_ref().ok_or(HibernateError::Off)
    }

    /// Writes what the guest has changed since the last time and takes its memory away. The guest does not notice; what it
    /// touches when it runs again is read back page by page. After an error it is awake and whole, and this can be tried
    /// again. [`HibernateError::is_fatal`] names the exception: then the guest is never polled again and has to be dropped.
    ///
    /// Blocks the thread for as long as the disk takes, and ends early when the guest is polled or dropped meanwhile.
    pub fn hibernate(&self) -> Result<Report, HibernateError> {
        self.write(&self.linear())
    }

    /// The same for what [`instantiate`](Self::instantiate) placed: for a guest that is hibernated and has been quiet since, as what it
    /// gives is small, and every wake needs most of it. The guest cannot even be dropped after an error that is fatal: the
    /// process has to end.
    pub fn hibernate_contexts(&self) -> Result<Report, HibernateError> {
        self.write(self.contexts().as_slice())
    }

    #[allow(unsafe_code)]
    fn write(&self, memories: &[Arc<Memory>]) -> Result<Report, HibernateError> {
        let store = &self.hibernation()?.0;
        let turn = self.turn().for_hibernation().ok_or(HibernateError::Busy)?;
        let start = now();
        let mut pages = 0_usize;
        for memory in memories {
            // SAFETY: the guest does not run, because its turn is held.
            let written = unsafe { memory.hibernate(store, || !self.turn().is_wanted()) }.inspect_err(|error| {
                if error.is_fatal() {
                    turn.lock_guest_out();
                }
            })?;
            pages = pages.saturating_add(written.pages);
        }
        self.0.sleeps.store(true, Ordering::Relaxed);
        drop(turn);
        let microseconds = u64::try_from(now().saturating_sub(start).as_micros()).unwrap_or(u64::MAX);
        Ok(Report { pages: u64::try_from(pages).unwrap_or(u64::MAX), bytes: bytes(pages), microseconds })
    }

    /// Gives back what the guest's memory has in common with other guests of the component with this digest, for a mapping
    /// of one file. Called once, after the instantiation and before the guest runs. Returns the bytes that are shared. After an
    /// error the guest is whole and shares less; after one that [is fatal](HibernateError::is_fatal) the caller must not let it
    /// run.
    ///
    /// Blocks the thread; the first guest of a component writes the file.
    #[allow(unsafe_code)]
    pub fn share(&self, digest: &str) -> Result<u64, HibernateError> {
        let store = &self.hibernation()?.0;
        let _turn = self.turn().for_hibernation().ok_or(HibernateError::Busy)?;
        let mut pages = 0_usize;
        for (number, memory) in self.linear().into_iter().enumerate() {
            // SAFETY: the guest does not run, because its turn is held.
            let shared = unsafe { memory.share(store, (digest.to_owned(), number)) }?;
            pages = pages.saturating_add(shared);
        }
        Ok(bytes(pages))
    }

    /// Has the kernel read what the last wake touched, before the next one touches it. Does not wait for the disk. Returns the
    /// bytes that it was told of: none before the second hibernation, from which on there is a wake to learn from.
    ///
    /// For wakes that are predicted: every other wake begins with it.
    pub fn prefetch(&self) -> Result<u64, HibernateError> {
        self.0.sleeps.store(false, Ordering::Relaxed);
        let mut pages = 0_usize;
        for memory in self.linear().into_iter().chain(self.contexts()) {
            pages = pages.saturating_add(memory.prefetch()?);
        }
        Ok(bytes(pages))
    }

    /// What the guest holds of the machine's memory now.
    pub fn resident(&self) -> Result<Resident, HibernateError> {
        let pagemap = &self.hibernation()?.0.pagemap;
        let mut resident = Resident::default();
        for memory in self.linear() {
            let scan = memory.scan(pagemap).map_err(HibernateError::io("read the page map for"))?;
            let private = scan.resident.and(&scan.private).pages();
            resident.private = resident.private.saturating_add(bytes(private));
            resident.file = resident.file.saturating_add(bytes(scan.resident.pages().saturating_sub(private)));
        }
        Ok(resident)
    }
}

fn bytes(pages: usize) -> u64 {
    u64::try_from(pages.saturating_mul(PAGE_BYTES)).unwrap_or(u64::MAX)
}

/// Not tokio's clock, which tests may pause.
fn now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}
