//! When a guest is to be resident during one idle gap.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::price::{Costs, Terms};
use crate::rule::Rule;
use crate::units;

/// Intervals of one plan at most: the first from age zero and three times made ready again. More would follow noise.
pub const MAX_INTERVALS: usize = 4;

/// How long a guest that was made ready for a timer stays so after the timer is due: the timer's run starts by then.
pub(crate) const TIMER_SLACK: Duration = Duration::from_millis(10);

/// Ages at which the guest is resident: from inclusive, until exclusive. Serialised as seconds, forever as null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Interval {
    /// When making ready starts; zero for an interval that needs none.
    #[serde(serialize_with = "as_seconds")]
    pub from: Duration,
    /// When it is dropped; [`Duration::MAX`] for never.
    #[serde(serialize_with = "as_seconds")]
    pub until: Duration,
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    (*time != Duration::MAX).then_some(time.as_secs_f64()).serialize(serializer)
}

/// The residency of an idle guest by its age, and the rule that decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    rule: Rule,
    /// Disjoint and ascending; those after `len` are empty.
    intervals: [Interval; MAX_INTERVALS],
    len: u8,
}

/// What a plan makes of one idle gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// How long the guest was resident during the gap.
    pub resident: Duration,
    /// How long the event that ended the gap waited for the guest.
    pub delay: Duration,
    /// Whether that event found the guest resident, or being made so.
    pub hit: bool,
    /// How often the guest was made ready ahead.
    pub prepared: u32,
    /// How often of these in vain: dropped again before an event came.
    pub wasted: u32,
}

impl Plan {
    /// Not resident at any age.
    #[must_use]
    pub fn immediately(rule: Rule) -> Self {
        Self { rule, intervals: [Interval::default(); MAX_INTERVALS], len: 0 }
    }

    /// Resident until that age; [`Duration::MAX`] for ever.
    #[must_use]
    pub fn resident_until(rule: Rule, until: Duration) -> Self {
        Self::immediately(rule).with(Duration::ZERO, until)
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Disjoint ascending intervals, at most [`MAX_INTERVALS`].
    #[must_use]
    pub fn intervals(&self) -> &[Interval] {
        self.intervals.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether the guest is to be resident at that age.
    #[must_use]
    pub fn is_resident(&self, age: Duration) -> bool {
        self.intervals().iter().any(|interval| (interval.from..interval.until).contains(&age))
    }

    /// The first age after that one at which [`Plan::is_resident`] changes; None if it never does.
    #[must_use]
    pub fn next_change(&self, age: Duration) -> Option<Duration> {
        let edges = self.intervals().iter().flat_map(|interval| [interval.from, interval.until]);
        edges.filter(|edge| *edge > age && *edge != Duration::MAX).min()
    }

    /// What becomes of a gap that an event ends.
    #[must_use]
    pub fn replay(&self, gap: Duration, costs: &Costs) -> Outcome {
        let mut outcome = Outcome { delay: costs.cold_wake, ..Outcome::default() };
        for interval in self.intervals() {
            if interval.from > gap {
                break;
            }
            outcome.resident += interval.until.min(gap) - interval.from;
            let ahead = interval.from > Duration::ZERO;
            outcome.prepared += u32::from(ahead);
            if interval.until > gap {
                outcome.hit = true;
                let loaded = if ahead { gap - interval.from } else { Duration::MAX };
                outcome.delay = costs.cold_wake.saturating_sub(loaded).max(costs.warm_wake);
            } else {
                outcome.wasted += u32::from(ahead);
            }
        }
        outcome
    }

    /// The same plan with another interval, such as the one for which [`crate::Correlations::followers`] has the guest made
    /// ready. If there are more than [`MAX_INTERVALS`] then, the last is left out.
    #[must_use]
    pub fn with(mut self, from: Duration, until: Duration) -> Self {
        let mut merged = Interval { from, until };
        if from >= until {
            return self;
        }
        let mut kept = [Interval::default(); MAX_INTERVALS + 1];
        let mut len = 0;
        let mut slots = kept.iter_mut();
        let mut keep = |interval| {
            if let Some(slot) = slots.next() {
                *slot = interval;
                len += 1;
            }
        };
        for interval in self.intervals() {
            if interval.until < merged.from {
                keep(*interval);
            } else if interval.from <= merged.until {
                merged = Interval { from: interval.from.min(merged.from), until: interval.until.max(merged.until) };
            }
        }
        keep(merged);
        for interval in self.intervals() {
            if interval.from > merged.until {
                keep(*interval);
            }
        }
        for (slot, interval) in self.intervals.iter_mut().zip(kept) {
            *slot = interval;
        }
        self.len = len.min(MAX_INTERVALS as u8);
        self
    }

    /// The same plan with the guest made ready to serve events between these ages, in seconds: its reload starts earlier
    /// by as long as it takes.
    pub(crate) fn ready_between(self, terms: &Terms, from: f64, until: f64) -> Self {
        self.with(units::duration(from - terms.lead), units::duration(until))
    }

    /// The same plan with nothing resident from that age on.
    pub(crate) fn ending_at(mut self, end: Duration) -> Self {
        let mut len = 0;
        for interval in self.intervals.iter_mut().take(usize::from(self.len)) {
            if interval.from < end {
                interval.until = interval.until.min(end);
                len += 1;
            }
        }
        self.len = len;
        self
    }

    /// The same plan for a guest with a timer due at that age: made ready just before if the delay saved is worth the
    /// preparation and the residency until then. The work of the reload is due either way. A guest is never kept
    /// resident to wait for a timer, unless that is due sooner than a reload takes. A plan full of earlier intervals stays.
    pub(crate) fn with_timer(self, due: Duration, terms: &Terms) -> Self {
        let waits = terms.rent * (terms.lead + TIMER_SLACK.as_secs_f64());
        if self.is_resident(due) || terms.delay <= terms.overhead + waits {
            return self;
        }
        let until = due.saturating_add(TIMER_SLACK);
        self.with(due.saturating_sub(units::duration(terms.lead)), until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::price::Price;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plan(intervals: &[(u64, u64)]) -> Plan {
        intervals.iter().fold(Plan::immediately(Rule::Hazard), |plan, (from, until)| plan.with(s(*from), s(*until)))
    }

    fn spans(plan: &Plan) -> Vec<(u64, u64)> {
        plan.intervals().iter().map(|interval| (interval.from.as_secs(), interval.until.as_secs())).collect()
    }

    /// 2 s cold, 1 s warm; a second of residency costs 0.1 s of delay, a second of work as much.
    fn costs() -> (Costs, Terms) {
        let costs = Costs::new(s(2), s(1), 100);
        (costs, Price { delay: 1000, work: 100 }.terms(&costs))
    }

    #[test]
    fn touching_intervals_become_one() {
        assert_eq!(spans(&plan(&[(0, 5), (5, 7), (10, 12), (11, 15), (20, 20)])), [(0, 7), (10, 15)]);
        assert_eq!(spans(&plan(&[(10, 12), (20, 22), (0, 30)])), [(0, 30)]);
        assert_eq!(spans(&plan(&[(10, 12), (0, 1), (5, 6)])), [(0, 1), (5, 6), (10, 12)]);
    }

    #[test]
    fn the_last_interval_is_left_out_of_a_full_plan() {
        assert_eq!(spans(&plan(&[(0, 1), (10, 11), (20, 21), (30, 31), (5, 6)])), [(0, 1), (5, 6), (10, 11), (20, 21)]);
    }

    #[test]
    fn residency_changes_at_the_edges() {
        let plan = plan(&[(0, 5), (10, 12)]);
        assert_eq!([0, 4, 5, 9, 10, 12].map(|age| plan.is_resident(s(age))), [true, true, false, false, true, false]);
        assert_eq!([0, 5, 11, 12].map(|age| plan.next_change(s(age))), [Some(s(5)), Some(s(10)), Some(s(12)), None]);
        assert_eq!(Plan::resident_until(Rule::Never, Duration::MAX).next_change(s(1)), None);
    }

    #[test]
    fn a_gap_is_a_hit_a_miss_or_wasted() {
        let (costs, terms) = costs();
        let plan = plan(&[(0, 5), (10, 15)]);
        let cases = [
            // gap, resident, delay, hit, prepared, wasted, cost = 0.1 × resident + delay - 1 + 0.2 × reloads (+ overhead)
            (4, 4, 1, true, 0, 0, 0.4),
            (7, 5, 2, false, 0, 0, 0.5 + 1.0 + 0.2),
            (14, 9, 1, true, 1, 0, 0.9 + 0.2),
            (20, 10, 2, false, 1, 1, 1.0 + 1.0 + 0.4),
        ];
        for (gap, resident, delay, hit, prepared, wasted, cost) in cases {
            let outcome = plan.replay(s(gap), &costs);
            assert_eq!(outcome, Outcome { resident: s(resident), delay: s(delay), hit, prepared, wasted }, "{gap}");
            assert!((terms.cost(&outcome, &costs) - cost).abs() < 1e-4, "{gap}: {}", terms.cost(&outcome, &costs));
        }
    }

    #[test]
    fn an_event_during_the_reload_waits_for_the_rest_of_it() {
        let (costs, _) = costs();
        let outcome = plan(&[(10, 15)]).replay(Duration::from_millis(10_500), &costs);
        assert_eq!((outcome.hit, outcome.delay), (true, Duration::from_millis(1500)));
    }

    #[test]
    fn a_timer_has_the_guest_ready_just_in_time() {
        let (_, terms) = costs();
        let until = s(100) + TIMER_SLACK;
        let with_timer = plan(&[(0, 5)]).with_timer(s(100), &terms);
        assert_eq!(with_timer.intervals()[1], Interval { from: s(98), until });
        assert_eq!(spans(&plan(&[(0, 101)]).with_timer(s(100), &terms)), [(0, 101)], "resident anyway");
    }

    #[test]
    fn a_timer_is_not_prepared_where_that_does_not_pay() {
        let costs = Costs::new(s(2), s(1), 1000); // two seconds of residency cost two seconds of delay
        let terms = Price { delay: 1000, work: 100 }.terms(&costs);
        assert_eq!(spans(&plan(&[(0, 5)]).with_timer(s(100), &terms)), [(0, 5)]);
        let fast = Costs::new(Duration::from_micros(100), Duration::ZERO, 1);
        assert_eq!(plan(&[]).with_timer(s(100), &Price::default().terms(&fast)).intervals(), []);
    }

    #[test]
    fn a_full_plan_has_room_for_a_timer_only_before_its_last_interval() {
        let (_, terms) = costs();
        let full = plan(&[(0, 1), (10, 11), (20, 21), (30, 31)]);
        assert_eq!(full.with_timer(s(100), &terms), full);
        assert!(full.with_timer(s(15), &terms).is_resident(s(15)));
    }

    proptest! {
        #[test]
        fn intervals_are_disjoint_ascending_and_bounded(
            pieces in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20), timer in any::<u64>(), end in any::<u64>(),
        ) {
            let (_, terms) = costs();
            let plan = pieces.iter().fold(Plan::immediately(Rule::Hazard), |plan, (from, length)| {
                plan.with(s(*from), s(from.saturating_add(*length)))
            });
            for plan in [plan, plan.with_timer(s(timer), &terms), plan.ending_at(s(end))] {
                prop_assert!(plan.intervals().len() <= MAX_INTERVALS);
                prop_assert!(plan.intervals().iter().all(|interval| interval.from < interval.until));
                prop_assert!(plan.intervals().is_sorted_by(|a, b| a.until < b.from));
            }
            prop_assert!(plan.ending_at(s(end)).intervals().iter().all(|interval| interval.until <= s(end)));
        }

        #[test]
        fn following_the_changes_gives_the_same_residency(
            pieces in prop::collection::vec((0u64..100, 1u64..20), 0..8), age in 0u64..120,
        ) {
            let plan = pieces.iter().fold(Plan::immediately(Rule::Hazard), |plan, (from, length)| {
                plan.with(s(*from), s(from + length))
            });
            let mut at = Duration::ZERO;
            let mut resident = plan.is_resident(at);
            while let Some(next) = plan.next_change(at).filter(|next| *next <= s(age)) {
                at = next;
                resident = !resident;
            }
            prop_assert_eq!(resident, plan.is_resident(s(age)));
        }
    }
}
