//! When one guest is in memory while it has nothing to do: what the sleep policy plans, from what was measured and learnt.

use std::time::Duration;

use wasm_operator_policy::{Costs, End, Explanation, GuestPolicy, Plan, Rule, Settings};

use crate::timer::Time;

/// The weight of a measurement that is lower, and of one that is higher than what was known. A wake takes longer on a busy
/// machine, which says nothing of the guest.
const LOWER: f64 = 0.5;
const HIGHER: f64 = 0.1;

/// When a guest that has nothing to do is put to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepPolicy {
    /// Stays awake.
    Never,
    /// Sleeps as soon as it is idle.
    Immediately,
    /// Sleeps after this idle time.
    Fixed(Duration),
    /// Sleeps, and is made ready ahead of time, as its own past suggests.
    Predicted(Settings),
}

impl Default for SleepPolicy {
    fn default() -> Self {
        Self::Predicted(Settings::default())
    }
}

/// What prediction has done for a guest. Zero in the modes without prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Events that found the guest in memory, or on its way there.
    pub hits: u64,
    /// Events that had to wake it.
    pub misses: u64,
    /// Times that it was made ready ahead for nothing.
    pub wasted: u64,
    /// Delay that events were saved by finding the guest in memory.
    pub delay_saved: Duration,
}

/// What was measured of a guest. Times are smoothed.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    /// From the decision to wake the guest until it has an instance.
    wake: Option<Duration>,
    /// CPU time of the first call of an instance, in which the guest sets itself up.
    first_call: Option<Duration>,
    /// CPU time of later calls.
    later_call: Option<Duration>,
    /// Bytes that its instances hold.
    bytes: u64,
}

/// One guest's sleep policy at work.
#[derive(Debug)]
pub(crate) struct Prediction {
    policy: SleepPolicy,
    /// None in the modes that learn nothing.
    learner: Option<Box<GuestPolicy>>,
    measured: Measured,
    pressure: f32,
    /// When the idle gap under way began. None before the guest's first run.
    idle_since: Option<Time>,
    plan: Plan,
    /// Made ready because of another guest's write, until then.
    held: Option<Time>,
    tally: Tally,
}

impl Prediction {
    pub(crate) fn new(policy: SleepPolicy) -> Self {
        let mut prediction = Self {
            policy,
            learner: None,
            measured: Measured::default(),
            pressure: 1.0,
            idle_since: None,
            plan: Plan::immediately(Rule::Immediately),
            held: None,
            tally: Tally::default(),
        };
        prediction.configure(policy);
        prediction
    }

    /// Changes the policy. What was learnt stays as long as there is someone to learn.
    pub(crate) fn configure(&mut self, policy: SleepPolicy) {
        self.policy = policy;
        match (policy, &mut self.learner) {
            (SleepPolicy::Predicted(settings), Some(learner)) => learner.configure(settings),
            (SleepPolicy::Predicted(settings), None) => self.learner = Some(Box::new(GuestPolicy::new(settings))),
            _ => self.learner = None,
        }
    }

    /// Takes a measurement of a wake.
    pub(crate) fn woke(&mut self, took: Duration) {
        smooth(&mut self.measured.wake, took);
    }

    /// Takes a measurement of a call: whether it was the first one of its instance, and its CPU time.
    pub(crate) fn called(&mut self, first: bool, cpu: Duration) {
        smooth(if first { &mut self.measured.first_call } else { &mut self.measured.later_call }, cpu);
    }

    /// Takes a measurement of what the guest's instances hold.
    pub(crate) fn holds(&mut self, bytes: u64) {
        self.measured.bytes = bytes;
    }

    /// What the guest's instances hold, as last measured.
    pub(crate) fn bytes(&self) -> u64 {
        self.measured.bytes
    }

    /// Says how scarce memory is: how many times its usual price it is worth.
    pub(crate) fn press(&mut self, pressure: f32) {
        self.pressure = pressure;
    }

    /// What waking and keeping the guest costs; None before anything was measured. What the first call of an instance takes
    /// longer than later ones is part of the wake. Until a later one was seen, that is all of it: a guest whose start is dear would
    /// otherwise be dropped too early for anyone to learn so.
    pub(crate) fn costs(&self) -> Option<Costs> {
        let set_up =
            self.measured.first_call.map(|cpu| cpu.saturating_sub(self.measured.later_call.unwrap_or_default()));
        let wake = self.measured.wake? + set_up.unwrap_or_default();
        Some(Costs { pressure: self.pressure, ..Costs::new(wake, Duration::ZERO, self.measured.bytes) })
    }

    /// The guest has nothing more to do. `timer`: when its next timer is due.
    pub(crate) fn idle(&mut self, now: Time, timer: Option<Time>) {
        self.idle_since = Some(now);
        self.held = None;
        self.replan(timer);
    }

    /// Plans the gap under way anew.
    pub(crate) fn replan(&mut self, timer: Option<Time>) {
        let Some(since) = self.idle_since else { return };
        let kept = |until| Plan::resident_until(Rule::Never, until);
        self.plan = match (self.policy, self.costs(), &self.learner) {
            (SleepPolicy::Never, ..) => kept(Duration::MAX),
            (SleepPolicy::Fixed(idle), ..) => kept(idle),
            (SleepPolicy::Predicted(_), Some(costs), Some(learner)) => {
                learner.plan(&costs, timer.map(|due| due.since(since)))
            }
            _ => Plan::immediately(Rule::Immediately),
        };
    }

    /// The gap ended, `at`: there is work. Returns whether it was a gap that an event ended.
    pub(crate) fn busy(&mut self, at: Time, end: End) -> bool {
        let held = self.held.take();
        let (Some(since), Some(costs)) = (self.idle_since.take(), self.costs()) else { return false };
        // Queued before the guest was idle: no gap.
        if at <= since {
            return false;
        }
        let gap = at.since(since);
        if let Some(learner) = &mut self.learner {
            let outcome = self.plan.replay(gap, &costs);
            self.tally.wasted = self.tally.wasted.saturating_add(outcome.wasted.into());
            if end == End::Event {
                if outcome.hit || held.is_some_and(|until| at < until) {
                    self.tally.hits = self.tally.hits.saturating_add(1);
                    let waited = if outcome.hit { outcome.delay } else { Duration::ZERO };
                    let saved = costs.cold_wake.saturating_sub(waited);
                    self.tally.delay_saved = self.tally.delay_saved.saturating_add(saved);
                } else {
                    self.tally.misses = self.tally.misses.saturating_add(1);
                }
            }
            learner.gap(gap, end, &costs);
        }
        end == End::Event
    }

    /// The gap under way was none: nothing is learnt from it.
    pub(crate) fn forget_gap(&mut self) {
        (self.idle_since, self.held) = (None, None);
    }

    /// Keeps the guest in memory until then, because another one's write is likely to concern it.
    pub(crate) fn hold(&mut self, until: Time) {
        self.held = Some(until);
    }

    /// The guest was dropped: what it was held for did not come.
    pub(crate) fn dropped(&mut self, now: Time) {
        if self.held.take_if(|until| *until <= now).is_some() {
            self.tally.wasted = self.tally.wasted.saturating_add(1);
        }
    }

    /// The plan of the gap under way is void: the guest was dropped for a reason that the plan does not know.
    pub(crate) fn give_up(&mut self) {
        self.held = None;
        self.plan = Plan::immediately(self.plan.rule());
    }

    /// If the guest is to be in memory now: until when; `Some(None)` for ever.
    pub(crate) fn resident_until(&self, now: Time) -> Option<Option<Time>> {
        let planned = self.age(now).filter(|age| self.plan.is_resident(*age));
        let planned =
            planned.map(|age| self.plan.next_change(age).and_then(|age| self.idle_since.map(|since| since + age)));
        let held = self.held.filter(|until| *until > now);
        match (planned, held) {
            (Some(None), _) => Some(None),
            (Some(Some(end)), held) => Some(Some(held.map_or(end, |until| until.max(end)))),
            (None, held) => held.map(Some),
        }
    }

    /// When the guest that is not in memory is to be made ready.
    pub(crate) fn ready_at(&self, now: Time) -> Option<Time> {
        if self.resident_until(now).is_some() {
            return Some(now);
        }
        let (since, age) = (self.idle_since?, self.age(now)?);
        self.plan.next_change(age).map(|age| since + age)
    }

    /// Whether another guest's write may have this one made ready.
    pub(crate) fn may_follow(&self, now: Time) -> bool {
        self.learner.is_some() && self.idle_since.is_some() && self.resident_until(now).is_none()
    }

    /// Takes someone else's forecast of the gap under way: its whole length.
    pub(crate) fn advise(&mut self, gap: Duration, timer: Option<Time>) {
        if let Some(learner) = &mut self.learner
            && self.idle_since.is_some()
        {
            learner.advise(gap);
            self.replan(timer);
        }
    }

    /// What a byte of the guest is worth now; the least is dropped first when memory is short.
    pub(crate) fn value(&self, now: Time) -> f64 {
        match (&self.learner, self.costs(), self.age(now)) {
            (Some(learner), Some(costs), Some(age)) => learner.value_at(age, &costs),
            _ => 0.0,
        }
    }

    /// Why the guest is where it is; None in the modes without prediction and before anything was measured.
    pub(crate) fn explain(&self, timer: Option<Time>) -> Option<Explanation> {
        let (learner, costs) = (self.learner.as_ref()?, self.costs()?);
        let due = timer.zip(self.idle_since).map(|(due, since)| due.since(since));
        Some(learner.explain(&costs, due))
    }

    pub(crate) fn policy(&self) -> SleepPolicy {
        self.policy
    }

    pub(crate) fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    fn age(&self, now: Time) -> Option<Duration> {
        self.idle_since.map(|since| now.since(since))
    }
}

fn smooth(known: &mut Option<Duration>, measured: Duration) {
    *known = Some(known.map_or(measured, |old| {
        let weight = if measured < old { LOWER } else { HIGHER };
        old.mul_f64(1.0 - weight) + measured.mul_f64(weight)
    }));
}

#[cfg(test)]
mod tests;
