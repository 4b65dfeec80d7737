//! The dispatcher's vocabulary: what it is told at the start, and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(doc)]
use crate::dispatch::Dispatcher;
use crate::dispatch::programs::ProgramRun;
use crate::dispatch::requests::{DEFAULT_MAX_REQUESTS, Refusal, RequestId, Serve};
use crate::fair::DEFAULT_WEIGHT;
use crate::lifecycle::{Path, SleepReason, State};
use crate::prediction::{SleepPolicy, Tally};
use crate::queue::{Key, Priority};
use crate::reconcile::{Cause, Tombstone};
use crate::slots::GuestId;
use crate::timer::Time;

/// Reconciles under way at once in the whole host unless configured: enough that guests which wait for slow answers do
/// not hold up the others, few enough that their instances stay in the hundreds of MiB.
pub const DEFAULT_MAX_RUNS: usize = 256;

/// What holds for the whole host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Reconciles under way at once.
    pub max_runs: usize,
    /// Requests under way at once.
    pub max_requests: usize,
    /// Bytes that compiled components may hold before sleeping guests are unloaded, the one used longest ago first; None
    /// never unloads. What the guests hold is reported with [`Dispatcher::set_bytes`].
    pub component_bytes: Option<u64>,
    /// The seed of all jitter.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_runs: DEFAULT_MAX_RUNS, max_requests: DEFAULT_MAX_REQUESTS, component_bytes: None, seed: 0 }
    }
}

/// What holds for one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its share of the host beside other guests that have work.
    pub weight: u32,
    /// Reconciles at once, and so instances. At least 1.
    pub concurrency: usize,
    /// Requests that it serves at once, each in an instance of its own. 0: none is ever served.
    pub requests: usize,
    /// Requests that may wait for a place; further ones are refused.
    pub waiting_requests: usize,
    /// When it is put to sleep.
    pub sleep: SleepPolicy,
    /// How long the first change for a sleeping guest waits for more to come, so that a burst costs one run per key.
    /// It delays each wake, so none unless bursts are expected; 20-50 ms then. Timers are not delayed.
    pub coalesce: Option<Duration>,
    /// How often all keys are reconciled without a change.
    pub resync: Option<Duration>,
    /// Whether it is held back. Running reconciles end; keys queue up.
    pub suspended: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            concurrency: 1,
            requests: 4,
            waiting_requests: 16,
            sleep: SleepPolicy::default(),
            coalesce: None,
            resync: None,
            suspended: false,
        }
    }
}

/// What woke a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// A change, or an object found by the first list.
    Event,
    /// A requeue-after, a retry or a resync.
    Timer,
    /// A request that it serves.
    Request,
    /// Nothing yet: it was made ready ahead of its work.
    Predicted,
}

impl From<Cause> for WakeReason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Initial | Cause::Change => Self::Event,
            Cause::Timer | Cause::Retry | Cause::Resync => Self::Timer,
        }
    }
}

/// A command to the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Drop what there is of the guest, compile and describe its component, then call [`Dispatcher::loaded`] or
    /// [`Dispatcher::load_failed`]. Nothing of the guest runs. Compile beforehand where the old component can go on
    /// meanwhile: the guest's keys wait until it is loaded.
    Load(GuestId),
    /// Reconcile, then call [`Dispatcher::finished`].
    Run(Job),
    /// Have the guest serve a request, then call [`Dispatcher::served`].
    Serve(Serve),
    /// Tell the caller that the request is not served. Nothing is to be called.
    Refuse(GuestId, RequestId, Refusal),
    /// Start the guest's program, end what is left of an earlier one, and call [`Dispatcher::program_ended`] with this run
    /// if it ends by itself.
    Start(GuestId, ProgramRun),
    /// Make an instance of the guest, or read the memory of its hibernated program ahead, then call [`Dispatcher::prepared`].
    Prepare(GuestId),
    /// Drop the guest's instances. None is in use. A program: hibernate it if it was idle or memory is short, and end it
    /// otherwise.
    Sleep(GuestId, SleepReason),
    /// Drop the guest's compiled component from memory. It has no instance.
    Unload(GuestId),
    /// Call [`Dispatcher::resync`] with the guest's keys.
    Resync(GuestId),
    /// The guest was removed and its last run has ended: drop everything. The id is not used again.
    Removed(GuestId),
}

/// One reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose.
    pub guest: GuestId,
    /// What.
    pub key: Key,
    /// Failures in a row before this attempt.
    pub attempt: u32,
    /// Why.
    pub cause: Cause,
    /// What was deleted since the last reconcile of this key that succeeded, oldest first.
    pub deleted: Vec<Tombstone>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The priority that the key had in the queue.
    pub priority: Priority,
    /// When the key was queued; now minus this is the queue duration.
    pub queued: Time,
    /// What the run finds in memory, if the shell did as it was told.
    pub path: Path,
    /// Set if this run wakes the guest.
    pub wake: Option<WakeReason>,
}

/// What there is to know of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: State,
    /// Keys that wait for a run, by priority.
    pub depth: BTreeMap<Priority, usize>,
    /// Keys that wait for a delay or a backoff.
    pub delayed: usize,
    /// Reconciles under way.
    pub running: usize,
    /// Requests that wait for a place.
    pub requests_waiting: usize,
    /// Requests under way.
    pub requests_running: usize,
    /// How long the oldest reconcile has been running.
    pub longest_running: Duration,
    /// How long all reconciles together have been running.
    pub unfinished: Duration,
    /// How often a key was queued that was not queued already.
    pub adds: u64,
    /// How often a key that failed was queued for another attempt.
    pub retries: u64,
    /// Total time awake.
    pub resident: Duration,
    /// Bytes of its compiled component, as reported.
    pub bytes: u64,
    /// What prediction has done for it.
    pub predicted: Tally,
}
