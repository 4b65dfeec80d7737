//! What one instance has used in its current call, and whether it has to stop.
//!
//! Shared between the store (which asks at every tick), the tasks of its HTTP requests and the caller, hence atomics.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::error::Limit;

/// Why a call has to end although the guest neither returned nor trapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("limit {0:?}")]
    Limit(Limit),
    #[error("panic: {0}")]
    Panic(String),
}

/// Time is CPU time of the thread that polls the guest: a busy machine costs a guest nothing, a wait neither.
#[derive(Default)]
pub(crate) struct Meter {
    /// Nanoseconds in finished slices of this call.
    used: AtomicU64,
    /// Reading of the thread's clock when the current slice began.
    slice: AtomicU64,
    /// Nanoseconds that one call may use.
    allowed: AtomicU64,
    /// Nanoseconds over all calls.
    total: AtomicU64,
    /// Reading of the thread's page faults when the current slice began.
    slice_faults: AtomicU64,
    /// Page faults over all calls.
    faults: AtomicU64,
    /// The limit that the guest ran into last in this call, whatever it made of it: `Limit as u8`, 0 for none.
    last_limit: AtomicU8,
    stop: Mutex<Option<Stop>>,
    /// Set while the guest has handed its thread back although it could go on.
    yielded: AtomicBool,
    /// Bytes of linear memory over all memories of the instance.
    memory: AtomicU64,
}

/// A slice of execution: from one poll of the guest to the next wait.
pub(crate) struct Slice<'a>(&'a Meter);

impl Meter {
    /// Forgets the call before.
    pub(crate) fn begin(&self, allowed: Duration) {
        self.used.store(0, Ordering::Relaxed);
        self.allowed.store(nanoseconds(allowed), Ordering::Relaxed);
        self.last_limit.store(0, Ordering::Relaxed);
        *self.stop.lock() = None;
    }

    /// The guest waited for the host: it has its whole time again. For programs, which are called once.
    pub(crate) fn renew(&self) {
        self.used.store(0, Ordering::Relaxed);
    }

    /// The guest hands its thread back although it could go on.
    pub(crate) fn yields(&self) {
        self.yielded.store(true, Ordering::Relaxed);
    }

    /// Whether the guest's last poll ended so; forgotten by asking.
    pub(crate) fn take_yielded(&self) -> bool {
        self.yielded.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    pub(crate) fn slice(&self) -> Slice<'_> {
        self.slice_faults.store(thread_faults(), Ordering::Relaxed);
        self.slice.store(thread_clock(), Ordering::Relaxed);
        Slice(self)
    }

    /// CPU time since the current slice began. Called on the thread that executes it.
    pub(crate) fn in_slice(&self) -> Duration {
        Duration::from_nanos(thread_clock().saturating_sub(self.slice.load(Ordering::Relaxed)))
    }

    /// Why the guest has to stop now, asked by the guest's own thread.
    pub(crate) fn verdict(&self) -> Option<Stop> {
        let used = self.used.load(Ordering::Relaxed).saturating_add(nanoseconds(self.in_slice()));
        if used > self.allowed.load(Ordering::Relaxed) {
            return Some(Stop::Limit(Limit::Cpu));
        }
        self.stopped()
    }

    /// Ends the call at the guest's next tick or wait.
    pub(crate) fn stop(&self, stop: Stop) {
        self.stop.lock().get_or_insert(stop);
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.stop.lock().clone()
    }

    /// Remembers that the guest ran into `limit`. It may well live on.
    pub(crate) fn note(&self, limit: Limit) {
        self.last_limit.store(limit as u8, Ordering::Relaxed);
    }

    pub(crate) fn noted(&self) -> Option<Limit> {
        let last = self.last_limit.load(Ordering::Relaxed);
        Limit::ALL.into_iter().find(|limit| *limit as u8 == last)
    }

    /// CPU time over all calls so far.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.total.load(Ordering::Relaxed))
    }

    /// Pages that were mapped in while the guest ran, over all calls so far.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        let spent = nanoseconds(self.0.in_slice());
        self.0.used.fetch_add(spent, Ordering::Relaxed);
        self.0.total.fetch_add(spent, Ordering::Relaxed);
        let faults = thread_faults().saturating_sub(self.0.slice_faults.load(Ordering::Relaxed));
        self.0.faults.fetch_add(faults, Ordering::Relaxed);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn thread_faults() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    usage.map_or(0, |usage| u64::try_from(usage.minor_page_faults()).unwrap_or(0))
}

fn thread_clock() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let meter = Meter::default();
        meter.begin(Duration::from_millis(2));
        {
            let _slice = meter.slice();
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(meter.verdict(), None, "sleep is not CPU time");
            while meter.in_slice() < Duration::from_millis(3) {
                std::hint::spin_loop();
            }
            assert_eq!(meter.verdict(), Some(Stop::Limit(Limit::Cpu)));
        }
        assert!(meter.total() >= Duration::from_millis(3));
        meter.begin(Duration::from_millis(2));
        let _slice = meter.slice();
        assert_eq!(meter.verdict(), None, "each call has its own allowance");
    }

    #[test]
    fn the_first_reason_to_stop_stays() {
        let meter = Meter::default();
        meter.begin(Duration::MAX);
        let _slice = meter.slice();
        meter.stop(Stop::Limit(Limit::Requests));
        meter.stop(Stop::Panic("later".into()));
        assert_eq!(meter.verdict(), Some(Stop::Limit(Limit::Requests)));
    }

    #[test]
    fn a_noted_limit_is_found_again() {
        let meter = Meter::default();
        assert_eq!(meter.noted(), None);
        for limit in Limit::ALL {
            meter.note(limit);
            assert_eq!(meter.noted(), Some(limit));
        }
        meter.begin(Duration::ZERO);
        assert_eq!(meter.noted(), None);
    }
}
