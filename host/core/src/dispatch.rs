//! The scheduler as one synchronous state machine: it owns every guest's queue, timers, retries, fair share and life
//! cycle, and decides what happens next.
//!
//! The shell tells it what happened ([`Dispatcher::mark`], [`Dispatcher::finished`], ...), then takes commands out of
//! [`Dispatcher::step`] until there are none, and calls again at [`Dispatcher::next_time`] or when it has told something
//! new. No call blocks, every decision is O(log n) in guests and keys, and a guest without work causes no command.
//!
//! Ids of guests that are gone are ignored everywhere, because events and removals cross on their way.

mod command;
mod guest;
mod programs;
mod requests;
mod residency;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use wasm_operator_policy::{Correlations, End};

use crate::backoff::{Backoff, Random};
use crate::fair::Fair;
use crate::lifecycle::Move;
use crate::queue::Started;
use crate::reconcile::Cause;
use crate::slots::Slots;
use crate::timer::Timers;

pub use self::command::{DEFAULT_MAX_RUNS, Job, Options, Settings, Snapshot, Step, WakeReason};
use self::guest::Guest;
pub use self::programs::{PAUSE, ProgramRun, SLEEP_RETRY};
pub use self::requests::{DEFAULT_MAX_REQUESTS, Refusal, RequestId, Serve};
pub use crate::lifecycle::{Path, SleepReason, State};
pub use crate::prediction::{SleepPolicy, Tally};
pub use crate::queue::{Completion, Key, Mark, Priority};
pub use crate::slots::GuestId;
pub use crate::timer::Time;

/// The keys of a resync are spread at random over this part of its interval.
pub const RESYNC_SPREAD_DIVISOR: u32 = 10;

/// The state machine. See the module.
#[derive(Debug)]
pub struct Dispatcher {
    options: Options,
    guests: Slots<Guest>,
    fair: Fair<GuestId>,
    fair_requests: Fair<GuestId>,
    attention: Timers<GuestId>,
    /// Guests whose component is in memory without an instance, the one used longest ago first.
    dormant: BTreeSet<(Time, GuestId)>,
    bytes: u64,
    running: usize,
    serving: usize,
    last_request: u64,
    last_program_run: u64,
    /// Commands that turn requests away. Bounded by the requests that may wait.
    refused: VecDeque<Step>,
    /// Bytes of instances that are to be dropped, because memory is short.
    excess: u64,
    correlations: Correlations<GuestId>,
    draining: bool,
    random: Random,
}

impl Dispatcher {
    /// A dispatcher without guests.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            guests: Slots::default(),
            fair: Fair::default(),
            fair_requests: Fair::default(),
            attention: Timers::default(),
            dormant: BTreeSet::new(),
            bytes: 0,
            running: 0,
            serving: 0,
            last_request: 0,
            last_program_run: 0,
            refused: VecDeque::new(),
            excess: 0,
            correlations: Correlations::new(),
            draining: false,
            random: Random::new(options.seed),
            options,
        }
    }

    /// Adds a guest. A [`Step::Load`] follows, unless it is suspended.
    pub fn add(&mut self, now: Time, settings: Settings) -> GuestId {
        let weight = settings.weight;
        let id = self.guests.insert(Guest::new(settings));
        self.set_weight(id, weight);
        self.refresh(now, id);
        id
    }

    /// Changes a guest's settings. What runs goes on; the rest follows the new settings at once.
    pub fn update(&mut self, now: Time, id: GuestId, settings: Settings) {
        let Some(guest) = self.live(id) else { return };
        if settings.suspended {
            guest.life.suspend();
        } else {
            guest.life.resume(now, guest.is_running());
        }
        if settings.resync != guest.settings.resync {
            guest.next_resync = settings.resync.map(|interval| now + interval);
        }
        let weight = settings.weight;
        if settings.sleep != guest.prediction.policy() {
            guest.prediction.configure(settings.sleep);
        }
        guest.settings = settings;
        guest.prediction.replan(guest.timer());
        self.set_weight(id, weight);
        self.refresh(now, id);
    }

    /// Removes a guest and its keys. Runs under way end; [`Step::Removed`] follows when they have.
    pub fn remove(&mut self, now: Time, id: GuestId) {
        let Some(guest) = self.live(id) else { return };
        guest.removed = true;
        self.refresh(now, id);
    }

    /// Has a guest's component loaded again: [`Step::Load`] follows when its runs have ended. Its keys stay.
    pub fn reload(&mut self, now: Time, id: GuestId) {
        let Some(guest) = self.live(id) else { return };
        guest.life.reload(now, guest.is_running());
        self.refresh(now, id);
    }

    /// The answer to [`Step::Load`]: the guest's component is ready to be mapped.
    pub fn loaded(&mut self, now: Time, id: GuestId) {
        let Some(guest) = self.live(id) else { return };
        guest.program = None;
        guest.life.loaded(now);
        guest.next_resync = guest.settings.resync.map(|interval| now + interval);
        self.refresh(now, id);
    }

    /// The answer to [`Step::Load`]: it is tried again after the guest's backoff.
    pub fn load_failed(&mut self, now: Time, id: GuestId) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id) else { return };
        guest.life.load_failed(now, random);
        self.refresh(now, id);
    }

    /// Drops the guest's keys that are not to be kept, such as those of a controller that a reload took away.
    pub fn retain(&mut self, now: Time, id: GuestId, keep: impl FnMut(&Key) -> bool) {
        let Some(guest) = self.live(id) else { return };
        guest.queue.retain(keep);
        self.refresh(now, id);
    }

    /// Something happened to a key: it is to be reconciled.
    pub fn mark(&mut self, now: Time, id: GuestId, mark: Mark) {
        let Some(guest) = self.live(id) else { return };
        if !guest.life.is_awake() && !guest.queue.is_ready() {
            guest.window = guest.settings.coalesce.map(|window| now + window);
        }
        guest.queue.mark(now, mark);
        self.refresh(now, id);
    }

    /// The answer to [`Step::Resync`]: the keys are queued with low priority, spread over a part of the interval.
    pub fn resync(&mut self, now: Time, id: GuestId, keys: impl IntoIterator<Item = Key>) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id).filter(|guest| !guest.removed) else { return };
        let spread = guest.settings.resync.unwrap_or_default() / RESYNC_SPREAD_DIVISOR;
        let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
        for key in keys {
            let delay = Duration::from_micros(random.up_to(micros));
            guest.queue.delay(now, key, delay, Cause::Resync, Cause::Resync.into());
        }
        guest.prediction.replan(guest.timer());
        self.refresh(now, id);
    }

    /// A [`Step::Run`] has ended. `cost` is what the guest is charged for under fair share: its CPU time.
    pub fn finished(&mut self, now: Time, id: GuestId, key: &Key, completion: Completion, cost: Duration) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id) else { return };
        if !guest.queue.finish(now, key, completion, |failures| Backoff::KEY.delay(failures, random)) {
            return;
        }
        guest.life.finished(now, completion == Completion::Broken, guest.is_running(), random);
        guest.note_idle(now);
        self.running = self.running.saturating_sub(1);
        self.charge(id, cost);
        self.refresh(now, id);
    }

    /// Says whether the guest has written something whose event has not come back yet. It is not put to sleep meanwhile,
    /// for at most [`crate::lifecycle::MAX_ECHO_WAIT`], because the event may wake it again at once.
    pub fn echo_pending(&mut self, now: Time, id: GuestId, pending: bool) {
        let Some(guest) = self.live(id) else { return };
        guest.life.echo_pending(now, pending);
        if !pending {
            guest.program_pauses(now);
        }
        self.refresh(now, id);
    }

    /// Reports how much memory the guest's compiled component holds while it is loaded.
    pub fn set_bytes(&mut self, id: GuestId, bytes: u64) {
        if let Some(guest) = self.guests.get_mut(id) {
            let old = std::mem::replace(&mut guest.bytes, bytes);
            self.bytes = self.bytes.saturating_sub(old).saturating_add(bytes);
        }
    }

    /// Stops for good: requests that wait are refused, no other command comes any more, and what is under way is awaited.
    pub fn drain(&mut self, now: Time) {
        self.draining = true;
        let guests: Vec<_> = self.guests.iter().map(|(id, _)| id).collect();
        for id in guests {
            self.refuse_waiting(now, id);
        }
    }

    /// Whether [`Dispatcher::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the dispatcher was drained and nothing runs.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.running == 0 && self.serving == 0 && self.refused.is_empty()
    }

    /// The next command. To be called until there is none.
    pub fn step(&mut self, now: Time) -> Option<Step> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(refused);
        }
        if self.draining {
            return None;
        }
        while let Some((_, id)) = self.attention.pop_due(now) {
            if let Some(step) = self.attend(now, id) {
                return Some(step);
            }
        }
        if self.running < self.options.max_runs
            && let Some(job) = self.start(now)
        {
            return Some(Step::Run(job));
        }
        if self.may_serve()
            && let Some(serve) = self.serve(now)
        {
            return Some(Step::Serve(serve));
        }
        self.relieve(now).or_else(|| self.unload(now))
    }

    /// When [`Dispatcher::step`] has a command or something to decide; [`Time::ZERO`] for at once, None for not before it
    /// is told something.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        if !self.refused.is_empty() {
            return Some(Time::ZERO);
        }
        if self.draining {
            return None;
        }
        if (self.may_serve() && !self.fair_requests.is_empty())
            || (self.running < self.options.max_runs && !self.fair.is_empty())
            || self.must_unload()
            || self.excess > 0
        {
            return Some(Time::ZERO);
        }
        self.attention.next()
    }

    /// Reconciles under way in the whole host.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// All guests that were not removed.
    pub fn guests(&self) -> impl Iterator<Item = GuestId> {
        self.guests.iter().filter(|(_, guest)| !guest.removed).map(|(id, _)| id)
    }

    /// What there is to know of a guest; None if it was removed.
    #[must_use]
    pub fn snapshot(&self, now: Time, id: GuestId) -> Option<Snapshot> {
        let guest = self.guests.get(id).filter(|guest| !guest.removed)?;
        let running = || guest.queue.started().map(|started| now.since(started));
        Some(Snapshot {
            state: guest.state(now),
            depth: guest.queue.depth().clone(),
            delayed: guest.queue.delayed(),
            running: guest.queue.running(),
            requests_waiting: guest.requests.waiting(),
            requests_running: guest.requests.running(),
            longest_running: running().max().unwrap_or_default(),
            unfinished: running().fold(Duration::ZERO, Duration::saturating_add),
            adds: guest.queue.adds(),
            retries: guest.queue.retries(),
            resident: guest.life.resident(now),
            bytes: guest.bytes,
            predicted: guest.prediction.tally(),
        })
    }

    fn set_weight(&mut self, id: GuestId, weight: u32) {
        self.fair.set_weight(id, weight);
        self.fair_requests.set_weight(id, weight);
    }

    /// Charges the guest for a run or a request.
    fn charge(&mut self, id: GuestId, cost: Duration) {
        self.fair.settle(id, cost);
        self.fair_requests.settle(id, cost);
    }

    fn live(&mut self, id: GuestId) -> Option<&mut Guest> {
        self.guests.get_mut(id).filter(|guest| !guest.removed)
    }

    /// Does what is due for one guest.
    fn attend(&mut self, now: Time, id: GuestId) -> Option<Step> {
        let guest = self.guests.get_mut(id)?;
        if guest.removed {
            self.forget(id);
            return Some(Step::Removed(id));
        }
        let may_run = guest.life.may_run_from().is_some_and(|from| from <= now);
        if may_run && guest.queue.advance(now) {
            guest.window = None;
        }
        let resync = guest.next_resync.is_some_and(|at| at <= now) && may_run;
        let step = if resync {
            guest.next_resync = guest.settings.resync.map(|interval| now + interval);
            Some(Step::Resync(id))
        } else {
            let busy = guest.is_busy(now);
            let program = guest.program_loop();
            guest.life.take_move(now, &guest.prediction, busy, program).map(|step| match step {
                Move::Load => {
                    guest.program = None;
                    guest.prediction.give_up();
                    Step::Load(id)
                }
                Move::Start => {
                    self.last_program_run = self.last_program_run.wrapping_add(1);
                    let run = ProgramRun(self.last_program_run);
                    guest.program_starts(run);
                    Step::Start(id, run)
                }
                Move::Prepare => {
                    guest.preparing = true;
                    Step::Prepare(id)
                }
                Move::Sleep(reason) => {
                    guest.prediction.dropped(now);
                    if reason != SleepReason::Idle {
                        guest.prediction.give_up();
                    }
                    guest.program_sleeps(reason);
                    Step::Sleep(id, reason)
                }
            })
        };
        if matches!(step, Some(Step::Load(_))) {
            self.set_bytes(id, 0);
        }
        self.refresh(now, id);
        step
    }

    /// Starts the run whose turn it is.
    fn start(&mut self, now: Time) -> Option<Job> {
        let id = self.fair.take()?;
        let guest = self.guests.get_mut(id)?;
        let Started { key, attempt, cause, priority, deleted, traceparent, queued } = guest.queue.start(now)?;
        let path = guest.life.start(now);
        guest.window = None;
        let end = match WakeReason::from(cause) {
            WakeReason::Timer => End::Timer,
            WakeReason::Event | WakeReason::Request | WakeReason::Predicted => End::Event,
        };
        if guest.prediction.busy(queued, end) {
            self.correlations.woke(id, queued.since(Time::ZERO));
        }
        self.running = self.running.saturating_add(1);
        self.refresh(now, id);
        let wake = (path != Path::Warm).then(|| cause.into());
        Some(Job { guest: id, key, attempt, cause, deleted, traceparent, priority, queued, path, wake })
    }

    fn must_unload(&self) -> bool {
        self.options.component_bytes.is_some_and(|budget| self.bytes > budget) && !self.dormant.is_empty()
    }

    /// Unloads the component of the sleeping guest that was used longest ago, if there is too much.
    fn unload(&mut self, now: Time) -> Option<Step> {
        if !self.must_unload() {
            return None;
        }
        let (_, id) = *self.dormant.first()?;
        self.guests.get_mut(id)?.life.unload();
        self.set_bytes(id, 0);
        self.refresh(now, id);
        Some(Step::Unload(id))
    }

    fn forget(&mut self, id: GuestId) {
        self.set_bytes(id, 0);
        self.fair.remove(id);
        self.fair_requests.remove(id);
        self.correlations.forget(id);
        self.attention.cancel(&id);
        if let Some(since) = self.guests.remove(id).and_then(|guest| guest.dormant) {
            self.dormant.remove(&(since, id));
        }
    }

    /// Brings what the dispatcher keeps of a guest in line with the guest. Called after every change.
    fn refresh(&mut self, now: Time, id: GuestId) {
        self.refuse_waiting(now, id);
        let Some(guest) = self.guests.get_mut(id) else { return };
        // What a program runs from cannot be unloaded.
        let dormant = guest.life.dormant_since().filter(|_| guest.program.is_none());
        let was_dormant = std::mem::replace(&mut guest.dormant, dormant);
        if dormant != was_dormant {
            if let Some(since) = was_dormant {
                self.dormant.remove(&(since, id));
            }
            if let Some(since) = dormant {
                self.dormant.insert((since, id));
            }
        }
        self.fair.set_ready(id, guest.is_runnable(now));
        self.fair_requests.set_ready(id, guest.is_serviceable(now));
        match guest.attention(now) {
            Some(at) => self.attention.set(id, at),
            None => {
                self.attention.cancel(&id);
            }
        }
    }
}
