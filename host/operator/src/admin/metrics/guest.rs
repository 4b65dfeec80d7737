//! The numbers of one guest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wasm_operator_core::dispatch::{SleepReason, WakeReason};

use super::Reconciled;
use super::histogram::{FIRST_REQUEST, Histogram, QUEUED, RECONCILE, WAKE};
use crate::pool::Found;

/// Different kinds of traps that are kept for a guest: the engine has fewer.
const MAX_TRAP_KINDS: usize = 32;

/// A count per word of a short list.
#[derive(Debug)]
pub(super) struct Counts<const N: usize> {
    words: &'static [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Counts<N> {
    const fn new(words: &'static [&'static str; N]) -> Self {
        Self { words, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn add(&self, word: &str) {
        if let Some(count) = self.words.iter().position(|w| *w == word).and_then(|place| self.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.words.iter().copied().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    pub(super) fn total(&self) -> u64 {
        self.read().map(|(_, count)| count).sum()
    }
}

/// Different status codes that are counted for a guest: a guest that makes up more counts under the last resort, 0.
const MAX_CODES: usize = 32;

/// A count per HTTP status code.
#[derive(Debug, Default)]
pub(super) struct Codes(Mutex<BTreeMap<u16, u64>>);

impl Codes {
    pub(super) fn add(&self, code: u16) {
        let mut codes = self.0.lock();
        let code = if codes.len() < MAX_CODES || codes.contains_key(&code) { code } else { 0 };
        let count = codes.entry(code).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn read(&self) -> Vec<(u16, u64)> {
        self.0.lock().iter().map(|(code, count)| (*code, *count)).collect()
    }
}

/// Of a program's memory, in bytes; and how often its contexts were written, or nothing could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hibernations {
    pub(super) written: u64,
    pub(super) read_ahead: u64,
    pub(super) contexts: u64,
    pub(super) failures: u64,
}

const RESULTS: [&str; 4] = ["error", "requeue", "requeue_after", "success"];
const WAKE_REASONS: [&str; 4] = ["event", "timer", "request", "predicted"];
const SLEEP_REASONS: [&str; 4] = ["idle", "failed", "suspended", "pressure"];

#[derive(Debug)]
pub(super) struct GuestNumbers {
    pub(super) reconciles: Counts<4>,
    pub(super) reconcile_time: Histogram,
    pub(super) queued: Histogram,
    pub(super) wakes: Counts<4>,
    pub(super) wake_from_dormant: Histogram,
    pub(super) wake_from_cold: Histogram,
    pub(super) sleeps: Counts<4>,
    pub(super) codes: Codes,
    pub(super) request_time: Histogram,
    pub(super) hibernation: Histogram,
    pub(super) first_request: Histogram,
    hibernated_bytes: AtomicU64,
    read_ahead_bytes: AtomicU64,
    contexts_hibernated: AtomicU64,
    not_hibernated: AtomicU64,
    traps: Mutex<BTreeMap<&'static str, u64>>,
    memory: AtomicU64,
    /// In nanoseconds; 0: it was never compiled.
    compile_time: AtomicU64,
}

impl Default for GuestNumbers {
    fn default() -> Self {
        Self {
            reconciles: Counts::new(&RESULTS),
            reconcile_time: Histogram::new(&RECONCILE),
            queued: Histogram::new(&QUEUED),
            wakes: Counts::new(&WAKE_REASONS),
            wake_from_dormant: Histogram::new(&WAKE),
            wake_from_cold: Histogram::new(&WAKE),
            sleeps: Counts::new(&SLEEP_REASONS),
            codes: Codes::default(),
            request_time: Histogram::new(&RECONCILE),
            hibernation: Histogram::new(&WAKE),
            first_request: Histogram::new(&FIRST_REQUEST),
            hibernated_bytes: AtomicU64::new(0),
            read_ahead_bytes: AtomicU64::new(0),
            contexts_hibernated: AtomicU64::new(0),
            not_hibernated: AtomicU64::new(0),
            traps: Mutex::default(),
            memory: AtomicU64::new(0),
            compile_time: AtomicU64::new(0),
        }
    }
}

impl GuestNumbers {
    pub(super) fn finished(&self, result: Reconciled, took: Duration) {
        self.reconciles.add(match result {
            Reconciled::Success => "success",
            Reconciled::RequeueAfter(_) => "requeue_after",
            Reconciled::Retry | Reconciled::RetryAfter(_) | Reconciled::Terminal | Reconciled::Broken => "error",
        });
        self.reconcile_time.observe(took);
    }

    pub(super) fn woke(&self, reason: Option<WakeReason>, found: Found, took: Duration) {
        match found {
            Found::Instance => return,
            Found::Component => self.wake_from_dormant.observe(took),
            Found::Nothing => self.wake_from_cold.observe(took),
        }
        match reason {
            Some(WakeReason::Event) => self.wakes.add("event"),
            Some(WakeReason::Timer) => self.wakes.add("timer"),
            Some(WakeReason::Request) => self.wakes.add("request"),
            Some(WakeReason::Predicted) => self.wakes.add("predicted"),
            // One more instance of a guest that is awake.
            None => {}
        }
    }

    pub(super) fn slept(&self, reason: SleepReason) {
        self.set_memory(0);
        self.sleeps.add(match reason {
            SleepReason::Idle => "idle",
            SleepReason::Failed => "failed",
            SleepReason::Suspended => "suspended",
            SleepReason::Pressure => "pressure",
        });
    }

    pub(super) fn hibernated(&self, bytes: u64, took: Duration) {
        self.hibernation.observe(took);
        self.hibernated_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn contexts_hibernated(&self, bytes: u64) {
        self.contexts_hibernated.fetch_add(1, Ordering::Relaxed);
        self.hibernated_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read_ahead(&self, bytes: u64) {
        self.wakes.add("predicted");
        self.read_ahead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn not_hibernated(&self) {
        self.not_hibernated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hibernations(&self) -> Hibernations {
        Hibernations {
            written: self.hibernated_bytes.load(Ordering::Relaxed),
            read_ahead: self.read_ahead_bytes.load(Ordering::Relaxed),
            contexts: self.contexts_hibernated.load(Ordering::Relaxed),
            failures: self.not_hibernated.load(Ordering::Relaxed),
        }
    }

    pub(super) fn trapped(&self, kind: &'static str) {
        let mut traps = self.traps.lock();
        if traps.len() < MAX_TRAP_KINDS || traps.contains_key(kind) {
            let count = traps.entry(kind).or_default();
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn traps(&self) -> Vec<(&'static str, u64)> {
        self.traps.lock().iter().map(|(kind, count)| (*kind, *count)).collect()
    }

    pub(super) fn errors(&self) -> u64 {
        self.reconciles.read().find(|(word, _)| *word == "error").map_or(0, |(_, count)| count)
    }

    pub(super) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn set_compile_time(&self, took: Duration) {
        self.compile_time.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn compile_time(&self) -> Option<Duration> {
        let nanoseconds = self.compile_time.load(Ordering::Relaxed);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }
}
