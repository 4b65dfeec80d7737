//! The work queue of one guest: dirty keys with priorities, delays and retries, as client-go's and controller-runtime's
//! priority queue keep them.
//!
//! A key is in the queue once, however often it is marked. It never runs twice at once: what is marked during a run is
//! queued when the run ends. A mark takes the place of a delay or a backoff that the key waits for, as in
//! controller-runtime's priority queue: the reconcile that it leads to decides anew. Only a delay of higher priority
//! than the mark stays until the run starts, so that a resync does not make a timer late. Of two delays the earlier stays.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::object::ObjectRef;
use crate::reconcile::{Cause, MAX_TOMBSTONES, Tombstone};
use crate::timer::{Time, Timers};

/// Every so many starts take the key that has waited longest, whatever its priority. So fresh changes have seven
/// eighths of a guest behind a start-up storm, and a key that `n` others have outwaited starts within `8 × (n + 1)`
/// starts, whatever else arrives.
pub const LONGEST_WAITING_EVERY: u32 = 8;

/// What is reconciled. By name, so that a key outlives a reload of the component that reconciles it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The controller's name in the guest's description.
    pub controller: Arc<str>,
    /// The primary.
    pub object: ObjectRef,
}

/// Higher runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(pub i32);

impl Priority {
    /// Of changes.
    pub const NORMAL: Self = Self(0);
    /// Of the initial list and of resyncs, as in controller-runtime.
    pub const LOW: Self = Self(-100);
}

impl From<Cause> for Priority {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Initial | Cause::Resync => Self::LOW,
            Cause::Change | Cause::Timer | Cause::Retry => Self::NORMAL,
        }
    }
}

/// A reason to reconcile a key now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What to reconcile.
    pub key: Key,
    /// Why. Of several reasons for one run, a fresh change is named before the others.
    pub cause: Cause,
    /// Of several, the highest counts.
    pub priority: Priority,
    /// The primary that was deleted.
    pub deleted: Option<Tombstone>,
    /// W3C trace context of the change; the newest known is kept.
    pub traceparent: Option<String>,
}

impl Mark {
    /// A mark with the priority that belongs to the cause.
    #[must_use]
    pub fn new(key: Key, cause: Cause) -> Self {
        Self { key, cause, priority: cause.into(), deleted: None, traceparent: None }
    }
}

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// Nothing to do before the next change.
    Done,
    /// Reconcile again after this time.
    RequeueAfter(Duration),
    /// The guest failed and asks for another attempt, after the key's backoff.
    Retry,
    /// The guest failed and asks for another attempt after this time. As with client-go's `AddAfter`, the key's backoff
    /// neither grows nor starts anew.
    RetryAfter(Duration),
    /// The guest failed and asks for none before the next change. The key's failures are forgotten.
    Terminal,
    /// The call did not end by itself: a trap, a broken limit, or the component could not be loaded. The key is retried
    /// after its backoff, and the guest as a whole is held back.
    Broken,
}

/// A key on its way to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// What to reconcile.
    pub key: Key,
    /// Failures in a row before this attempt.
    pub attempt: u32,
    /// Why.
    pub cause: Cause,
    /// The priority that it had.
    pub priority: Priority,
    /// What was deleted since the last reconcile that succeeded, oldest first, at most [`MAX_TOMBSTONES`].
    pub deleted: Vec<Tombstone>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// When the key was queued.
    pub queued: Time,
}

/// A key that should run. It has a place in the two orders unless it is running.
#[derive(Debug, Clone, Copy)]
struct Pending {
    cause: Cause,
    priority: Priority,
    queued: Time,
    /// The sequence number of the first mark.
    age: u64,
    /// The sequence number of the mark that gave it its priority.
    rank: u64,
}

#[derive(Debug, Default)]
struct Entry {
    pending: Option<Pending>,
    /// What becomes pending when the key's timer is due.
    delayed: Option<(Cause, Priority)>,
    /// Failures in a row.
    failures: u32,
    /// Those of them that were given a backoff.
    backoffs: u32,
    deleted: Vec<Tombstone>,
    traceparent: Option<String>,
}

#[derive(Debug)]
struct Run {
    started: Time,
    priority: Priority,
    /// Given back when the run fails: the guest has not consumed them.
    deleted: Vec<Tombstone>,
    traceparent: Option<String>,
    /// The key was removed meanwhile, so nothing of this run matters any more.
    forgotten: bool,
}

/// The queue of one guest. Every operation is O(log n) in the number of its keys.
#[derive(Debug, Default)]
pub struct Queue {
    entries: BTreeMap<Key, Entry>,
    by_priority: BTreeMap<(Reverse<Priority>, u64), Key>,
    by_age: BTreeMap<u64, Key>,
    timers: Timers<Key>,
    running: BTreeMap<Key, Run>,
    depth: BTreeMap<Priority, usize>,
    sequence: u64,
    starts: u32,
    adds: u64,
    retries: u64,
}

impl Queue {
    /// Queues a key, or merges the mark into what is queued.
    pub fn mark(&mut self, now: Time, mark: Mark) {
        let Mark { key, cause, priority, deleted, traceparent } = mark;
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.delayed.is_some_and(|(_, delayed)| delayed <= priority) {
            entry.delayed = None;
            self.timers.cancel(&key);
        }
        if let Some(tombstone) = deleted {
            entry.deleted.push(tombstone);
            keep_newest(&mut entry.deleted);
        }
        entry.traceparent = traceparent.or(entry.traceparent.take());
        self.pend(now, key, cause, priority);
    }

    /// Queues a key after a delay, unless it is queued already with this priority. Of two delays the earlier stays, with
    /// the higher priority of both.
    pub fn delay(&mut self, now: Time, key: Key, delay: Duration, cause: Cause, priority: Priority) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.pending.is_some_and(|pending| pending.priority >= priority) {
            return;
        }
        let earlier = self.timers.set_earliest(key, now + delay);
        entry.delayed = Some(match entry.delayed {
            Some((old_cause, old)) => (if earlier { cause } else { old_cause }, old.max(priority)),
            None => (cause, priority),
        });
    }

    /// Queues the keys whose delay is over. Returns whether there were any.
    pub fn advance(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some((at, key)) = self.timers.pop_due(now) {
            let delayed = self.entries.get_mut(&key).and_then(|entry| entry.delayed.take());
            if let Some((cause, priority)) = delayed {
                self.pend(at, key, cause, priority);
                any = true;
            }
        }
        any
    }

    /// When [`Queue::advance`] has something to do.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Whether a key waits for a run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.by_age.is_empty()
    }

    /// Takes the next key. It counts as running until [`Queue::finish`].
    pub fn start(&mut self, now: Time) -> Option<Started> {
        self.starts = self.starts.wrapping_add(1);
        let longest_waiting = self.starts.is_multiple_of(LONGEST_WAITING_EVERY);
        let key = if longest_waiting { self.by_age.values().next() } else { self.by_priority.values().next() }?.clone();
        let entry = self.entries.get_mut(&key)?;
        let pending = entry.pending.take()?;
        if entry.delayed.take().is_some() {
            self.timers.cancel(&key);
        }
        let attempt = entry.failures;
        let deleted = std::mem::take(&mut entry.deleted);
        let traceparent = entry.traceparent.take();
        self.leave(&pending);
        let Pending { cause, priority, queued, .. } = pending;
        let run = Run {
            started: now,
            priority,
            deleted: deleted.clone(),
            traceparent: traceparent.clone(),
            forgotten: false,
        };
        self.running.insert(key.clone(), run);
        Some(Started { key, attempt, cause, priority, deleted, traceparent, queued })
    }

    /// Ends a run. `backoff` gives the wait after so many others since the last success. Returns false if the key was
    /// not running.
    pub fn finish(
        &mut self,
        now: Time,
        key: &Key,
        completion: Completion,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> bool {
        let Some(run) = self.running.remove(key) else { return false };
        let entry = self.entries.entry(key.clone()).or_default();
        let completion = if run.forgotten { Completion::Done } else { completion };
        match completion {
            Completion::Done | Completion::Terminal => entry.forget_failures(),
            Completion::RequeueAfter(delay) => {
                entry.forget_failures();
                self.delay(now, key.clone(), delay, Cause::Timer, run.priority);
            }
            Completion::Retry | Completion::RetryAfter(_) | Completion::Broken => {
                let delay = if let Completion::RetryAfter(delay) = completion {
                    delay
                } else {
                    let backoffs = entry.backoffs;
                    entry.backoffs = backoffs.saturating_add(1);
                    backoff(backoffs)
                };
                entry.failures = entry.failures.saturating_add(1);
                let newer = std::mem::replace(&mut entry.deleted, run.deleted);
                entry.deleted.extend(newer);
                keep_newest(&mut entry.deleted);
                entry.traceparent = entry.traceparent.take().or(run.traceparent);
                self.retries = self.retries.saturating_add(1);
                self.delay(now, key.clone(), delay, Cause::Retry, run.priority);
            }
        }
        if let Some(pending) = self.entries.get(key).and_then(|entry| entry.pending) {
            self.enter(key.clone(), &pending);
        }
        self.drop_if_idle(key);
        true
    }

    /// Removes the keys that are not to be kept, with their delays and failures. Their running reconciles end without
    /// consequences.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key) -> bool) {
        let gone: Vec<Key> = self.entries.keys().chain(self.running.keys()).filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            self.timers.cancel(&key);
            if let Some(run) = self.running.get_mut(&key) {
                run.forgotten = true;
            }
            let removed = self.entries.remove(&key).and_then(|entry| entry.pending);
            if let Some(pending) = removed
                && !self.running.contains_key(&key)
            {
                self.leave(&pending);
            }
        }
        self.drop_nodes();
    }

    /// Keys that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// When each running reconcile started, in no particular order. At most as many as the guest's concurrency.
    pub fn started(&self) -> impl Iterator<Item = Time> {
        self.running.values().map(|run| run.started)
    }

    /// Keys that wait for a run, by priority.
    #[must_use]
    pub fn depth(&self) -> &BTreeMap<Priority, usize> {
        &self.depth
    }

    /// Keys that wait for a delay or a backoff.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.timers.len()
    }

    /// Keys of which the queue knows anything at all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the queue knows of no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often a key was queued that was not queued already.
    #[must_use]
    pub fn adds(&self) -> u64 {
        self.adds
    }

    /// How often a key that failed was queued for another attempt.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries
    }

    fn pend(&mut self, queued: Time, key: Key, cause: Cause, priority: Priority) {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let old = entry.pending;
        let pending = match old {
            None => Pending { cause, priority, queued, age: sequence, rank: sequence },
            Some(old) => {
                let cause = if precedence(cause) > precedence(old.cause) { cause } else { old.cause };
                let (priority, rank) =
                    if priority > old.priority { (priority, sequence) } else { (old.priority, old.rank) };
                Pending { cause, priority, rank, ..old }
            }
        };
        entry.pending = Some(pending);
        if old.is_none() {
            self.adds = self.adds.saturating_add(1);
        }
        if !self.running.contains_key(&key) {
            if let Some(old) = old {
                self.leave(&old);
            }
            self.enter(key, &pending);
        }
    }

    fn enter(&mut self, key: Key, pending: &Pending) {
        self.by_priority.insert((Reverse(pending.priority), pending.rank), key.clone());
        self.by_age.insert(pending.age, key);
        *self.depth.entry(pending.priority).or_default() += 1;
    }

    fn leave(&mut self, pending: &Pending) {
        self.by_priority.remove(&(Reverse(pending.priority), pending.rank));
        self.by_age.remove(&pending.age);
        if let Some(depth) = self.depth.get_mut(&pending.priority) {
            *depth = depth.saturating_sub(1);
            if *depth == 0 {
                self.depth.remove(&pending.priority);
            }
        }
    }

    fn drop_if_idle(&mut self, key: &Key) {
        // Failures and tombstones live no longer than the run that they wait for.
        let waits = |entry: &Entry| entry.pending.is_some() || entry.delayed.is_some();
        if !self.entries.get(key).is_some_and(waits) {
            self.entries.remove(key);
            self.drop_nodes();
        }
    }

    /// A B-tree that was emptied keeps its last node, and those of this queue take 4 KiB of each guest that waits.
    fn drop_nodes(&mut self) {
        if self.entries.is_empty() {
            self.entries = BTreeMap::new();
            self.by_priority = BTreeMap::new();
            self.by_age = BTreeMap::new();
            self.depth = BTreeMap::new();
            self.timers = Timers::default();
        }
        if self.running.is_empty() {
            self.running = BTreeMap::new();
        }
    }
}

impl Entry {
    fn forget_failures(&mut self) {
        self.failures = 0;
        self.backoffs = 0;
    }
}

/// Which of two causes a run that has both is told.
const fn precedence(cause: Cause) -> u8 {
    match cause {
        Cause::Resync => 0,
        Cause::Initial => 1,
        Cause::Timer => 2,
        Cause::Retry => 3,
        Cause::Change => 4,
    }
}

fn keep_newest(deleted: &mut Vec<Tombstone>) {
    let excess = deleted.len().saturating_sub(MAX_TOMBSTONES);
    deleted.drain(..excess);
}
