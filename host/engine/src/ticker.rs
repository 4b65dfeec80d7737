//! The clock that interrupts guests: it advances wasmtime's epoch once per millisecond while a guest runs for long, seldom
//! while guests run shortly, and stops when none does. When none has for a while, it has what they used let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long a guest may keep its thread before the others on it get their turn. 10 ms would show in a 2 ms hop.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// The time to the next tick when a tick has met no running guest. Most calls are over in far less than a tick, and each tick
/// takes some ten microseconds from them; the first turn of a guest that computes for long may be this long instead.
const CALM_TICK: Duration = Duration::from_millis(4);

/// How many ticks without a running guest until the thread parks: waking it costs a system call per call of a guest, so
/// it stays up through short pauses.
const LINGER_TICKS: u32 = 2;

/// How long no guest runs until the host rests, once until the next one runs. Longer than the pauses in anything that is
/// under way, since the next guest finds its code unmapped: that costs it some hundred page faults.
const REST_AFTER: Duration = Duration::from_secs(2);

/// The thread only loops and reads short files; musl's minimum is enough.
const STACK_BYTES: usize = 64 << 10;

/// Owns the thread, which ends when this is dropped.
pub(crate) struct Ticker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Guests that are executing right now, not those that wait for a response.
    running: AtomicUsize,
    /// A guest has executed since the last tick. Most are done before a tick sees them.
    ran: AtomicBool,
    parked: AtomicBool,
    stopped: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// A guest executes until this is dropped.
pub(crate) struct Running<'a>(&'a Shared);

impl Ticker {
    /// `tick` is called every millisecond while a guest keeps its thread, `rest` when none has run for two seconds.
    pub(crate) fn start(tick: impl Fn() + Send + 'static, rest: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("epoch".into())
            .stack_size(STACK_BYTES)
            .spawn(move || thread.run(&tick, &rest))?;
        Ok(Self(shared))
    }

    pub(crate) fn enter(&self) -> Running<'_> {
        // Both orders of this and of the thread's "parked, then look at running" see each other: no wake is lost.
        self.0.running.fetch_add(1, Ordering::SeqCst);
        self.0.ran.store(true, Ordering::Relaxed);
        if self.0.parked.load(Ordering::SeqCst) {
            self.0.notify();
        }
        Running(&self.0)
    }

    #[cfg(test)]
    fn is_parked(&self) -> bool {
        self.0.parked.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.notify();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn notify(&self) {
        let _guard = self.lock.lock();
        self.wake.notify_one();
    }

    fn run(&self, tick: &impl Fn(), rest: &impl Fn()) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            let running = self.running.load(Ordering::SeqCst) > 0;
            if self.ran.swap(false, Ordering::Relaxed) || running {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > LINGER_TICKS {
                self.park(rest);
                idle = 0;
            }
            std::thread::sleep(if running { TICK } else { CALM_TICK });
            tick();
        }
    }

    /// Waits for a guest that runs.
    fn park(&self, rest: &impl Fn()) {
        let mut guard = self.lock.lock();
        self.parked.store(true, Ordering::SeqCst);
        let mut awake = true;
        while self.running.load(Ordering::SeqCst) == 0 && !self.stopped.load(Ordering::SeqCst) {
            if !awake {
                self.wake.wait(&mut guard);
            } else if self.wake.wait_for(&mut guard, REST_AFTER).timed_out() {
                // A guest that begins now must not wait for this.
                MutexGuard::unlocked(&mut guard, rest);
                awake = false;
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn ticks_while_a_guest_runs_and_parks_when_none_does() {
        let ticks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ticks);
        let ticker = Ticker::start(
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            },
            || (),
        )
        .unwrap();
        wait_for(|| ticker.is_parked());
        let parked_at = ticks.load(Ordering::SeqCst);
        {
            let _running = ticker.enter();
            wait_for(|| ticks.load(Ordering::SeqCst) >= parked_at + 3);
        }
        wait_for(|| ticker.is_parked());
    }

    #[test]
    fn rests_once_after_each_time_that_guests_ran() {
        let rests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&rests);
        let rest = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        let ticker = Ticker::start(|| (), rest).unwrap();
        wait_for(|| rests.load(Ordering::SeqCst) == 1);
        let running = ticker.enter();
        wait_for(|| !ticker.is_parked());
        assert_eq!(rests.load(Ordering::SeqCst), 1, "only while no guest runs");
        drop(running);
        wait_for(|| rests.load(Ordering::SeqCst) == 2);
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        struct Ended(Arc<AtomicBool>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let guard = Ended(Arc::clone(&ended));
        let ticker = Ticker::start(
            move || {
                let _keep = &guard;
            },
            || (),
        )
        .unwrap();
        drop(ticker);
        wait_for(|| ended.load(Ordering::SeqCst));
    }
}
