//! Replays the events of a trace through every policy.

use std::collections::BTreeMap;
use std::time::Duration;

use wasm_operator_policy::{Correlations, Costs, End, GuestPolicy, Outcome, Plan, Price, Rule, Settings};

use crate::trace::{Sequence, Trace};

/// The resolution of a picture: residency is kept as shares of this many equal pieces of the time.
pub(crate) const COLUMNS: usize = 960;

/// What waking and residency cost, for all guests of all traces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) costs: Costs,
    pub(crate) price: Price,
}

/// A way to decide residency, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Policy {
    /// Knows each gap: the least possible cost.
    Optimum,
    /// What the host does: the rule with the least recent cost.
    Predicted,
    /// The same, with guests made ready after the events of those that they follow. Each event counts as a write.
    Correlated,
    /// One rule alone.
    Rule(Rule),
}

impl Policy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Optimum => "optimum",
            Self::Predicted => "predicted",
            Self::Correlated => "with correlation",
            Self::Rule(rule) => rule.name(),
        }
    }
}

/// What a policy made of a guest's gaps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Seconds of delay.
    pub(crate) cost: f64,
    pub(crate) misses: usize,
    pub(crate) prepared: u64,
    pub(crate) wasted: u64,
    pub(crate) resident: Duration,
    /// One per event.
    pub(crate) delays: Vec<Duration>,
}

/// One guest, replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) guest: Option<String>,
    /// From the first event to the last.
    pub(crate) span: Duration,
    /// When each gap ended, since the first event, and how long it was.
    pub(crate) gaps: Vec<(Duration, Duration)>,
    pub(crate) tallies: BTreeMap<Policy, Tally>,
    /// The share of each of [`COLUMNS`] pieces of the span in which the guest was resident.
    pub(crate) residency: BTreeMap<Policy, Vec<f32>>,
    /// The number of gaps that each rule ruled.
    pub(crate) ruled: BTreeMap<Rule, usize>,
}

/// A guest on its way through the trace.
struct Guest {
    policy: GuestPolicy,
    /// When its last event was, and what is planned since.
    idle: Option<(Duration, Plan, Plan)>,
    first: Duration,
    replayed: Replayed,
}

/// Replays all guests of a trace side by side. A guest has its last run done at once, so that it is idle from event to event.
pub(crate) fn replay(trace: &Trace, setting: &Setting) -> Vec<Replayed> {
    let mut guests: Vec<Guest> = trace.sequences.iter().map(|sequence| Guest::new(sequence, setting)).collect();
    let mut correlations = (guests.len() > 1).then(Correlations::new);
    let mut events: Vec<(Duration, usize)> = trace
        .sequences
        .iter()
        .enumerate()
        .flat_map(|(index, sequence)| sequence.events.iter().map(move |at| (*at, index)))
        .collect();
    events.sort_unstable();
    for (at, index) in events {
        if let Some(guest) = guests.get_mut(index) {
            guest.event(at, setting, correlations.is_some());
        }
        if let Some(correlations) = &mut correlations {
            correlations.woke(index, at);
            correlations.wrote(index, at);
            let asleep = |index: usize| guests.get(index)?.asleep(at).then_some(setting.costs);
            let followers: Vec<_> = correlations.followers(index, &setting.price, asleep).collect();
            for follower in followers {
                if let Some(guest) = guests.get_mut(follower.guest) {
                    guest.make_ready(at, follower.hold);
                }
            }
        }
    }
    guests.into_iter().map(|guest| guest.replayed).collect()
}

impl Guest {
    fn new(sequence: &Sequence, setting: &Setting) -> Self {
        let first = sequence.events.first().copied().unwrap_or_default();
        let last = sequence.events.last().copied().unwrap_or_default();
        Self {
            policy: GuestPolicy::new(Settings { price: setting.price, ..Settings::default() }),
            idle: None,
            first,
            replayed: Replayed {
                guest: sequence.guest.clone(),
                span: last - first,
                gaps: Vec::with_capacity(sequence.events.len()),
                tallies: BTreeMap::new(),
                residency: BTreeMap::new(),
                ruled: BTreeMap::new(),
            },
        }
    }

    fn event(&mut self, at: Duration, setting: &Setting, correlated: bool) {
        let costs = &setting.costs;
        if let Some((since, predicted, with_correlation)) = self.idle {
            let gap = at.saturating_sub(since);
            self.replayed.gaps.push((at.saturating_sub(self.first), gap));
            *self.replayed.ruled.entry(predicted.rule()).or_default() += 1;
            let mut plans = vec![(Policy::Optimum, optimum(gap, setting)), (Policy::Predicted, predicted)];
            if correlated {
                plans.push((Policy::Correlated, with_correlation));
            }
            let alone = Rule::ALL.into_iter().filter(|rule| *rule != Rule::Advised);
            plans.extend(alone.map(|rule| (Policy::Rule(rule), self.policy.plan_by(rule, costs))));
            for (policy, plan) in plans {
                let outcome = plan.replay(gap, costs);
                self.replayed.tallies.entry(policy).or_default().add(&outcome, setting);
                let residency = self.replayed.residency.entry(policy).or_insert_with(|| vec![0.0; COLUMNS]);
                let from = since.saturating_sub(self.first);
                for interval in plan.intervals().iter().filter(|interval| interval.from < gap) {
                    fill(residency, self.replayed.span, from + interval.from, from + interval.until.min(gap));
                }
            }
            self.policy.gap(gap, End::Event, costs);
        }
        let plan = self.policy.plan(costs, None);
        self.idle = Some((at, plan, plan));
    }

    fn asleep(&self, at: Duration) -> bool {
        self.idle.is_some_and(|(since, _, plan)| !plan.is_resident(at.saturating_sub(since)))
    }

    fn make_ready(&mut self, at: Duration, hold: Duration) {
        if let Some((since, _, plan)) = &mut self.idle {
            let age = at.saturating_sub(*since);
            *plan = plan.with(age, age.saturating_add(hold));
        }
    }
}

/// The cheapest of staying, dropping, and being made ready just in time.
fn optimum(gap: Duration, setting: &Setting) -> Plan {
    let drop = Plan::immediately(Rule::Immediately);
    let stay = Plan::resident_until(Rule::Never, Duration::MAX);
    let just_in_time = drop.with(gap.saturating_sub(setting.costs.cold_wake), Duration::MAX);
    let cost = |plan: &Plan| setting.price.cost(&plan.replay(gap, &setting.costs), &setting.costs);
    [drop, stay, just_in_time].into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(drop)
}

/// Adds residency between two times to the pieces of the span that they touch.
fn fill(pieces: &mut [f32], span: Duration, from: Duration, until: Duration) {
    let scale = pieces.len() as f64 / span.as_secs_f64().max(f64::MIN_POSITIVE);
    let (from, until) = (from.as_secs_f64() * scale, until.as_secs_f64() * scale);
    let touched = until.ceil() as usize - (from as usize).min(until.ceil() as usize);
    for (index, piece) in pieces.iter_mut().enumerate().skip(from as usize).take(touched) {
        let (start, end) = (index as f64, index as f64 + 1.0);
        *piece += (until.min(end) - from.max(start)).max(0.0) as f32;
    }
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, setting: &Setting) {
        self.cost += setting.price.cost(outcome, &setting.costs);
        self.misses += usize::from(!outcome.hit);
        self.prepared += u64::from(outcome.prepared);
        self.wasted += u64::from(outcome.wasted);
        self.resident += outcome.resident;
        self.delays.push(outcome.delay);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.cost += other.cost;
        self.misses += other.misses;
        self.prepared += other.prepared;
        self.wasted += other.wasted;
        self.resident += other.resident;
        self.delays.extend_from_slice(&other.delays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting { costs: Costs::new(Duration::from_millis(100), Duration::ZERO, 200 << 20), price: Price::default() }
    }

    fn trace(sequences: &[&[f64]]) -> Trace {
        let sequences = sequences.iter().enumerate().map(|(index, events)| Sequence {
            guest: Some(index.to_string()),
            events: events.iter().map(|at| Duration::from_secs_f64(*at)).collect(),
        });
        Trace { path: "test.csv".into(), sequences: sequences.collect(), skipped: 0 }
    }

    #[test]
    fn no_policy_costs_less_than_the_optimum() {
        let events: Vec<f64> = (0..300).map(|n| f64::from(n) * 40.0 + f64::from(n * 7919 % 97) / 3.0).collect();
        let replayed = replay(&trace(&[&events]), &setting());
        let tallies = &replayed[0].tallies;
        let optimum = tallies[&Policy::Optimum].cost;
        assert!(tallies.values().all(|tally| tally.cost >= optimum - 1e-9), "{tallies:?}");
        assert!(tallies.values().all(|tally| tally.delays.len() == 299));
    }

    #[test]
    fn never_is_always_resident_and_never_misses_and_immediately_the_opposite() {
        let replayed = replay(&trace(&[&[5.0, 10.0, 300.0]]), &setting());
        let never = &replayed[0].tallies[&Policy::Rule(Rule::Never)];
        assert_eq!((never.misses, never.resident), (0, Duration::from_secs(295)));
        let immediately = &replayed[0].tallies[&Policy::Rule(Rule::Immediately)];
        assert_eq!((immediately.misses, immediately.resident), (2, Duration::ZERO));
        assert!(replayed[0].residency[&Policy::Rule(Rule::Never)].iter().all(|share| (*share - 1.0).abs() < 1e-3));
    }

    #[test]
    fn a_guest_that_follows_another_is_ready_with_correlation() {
        let leader: Vec<f64> = (0..200).map(|n| f64::from(n) * 500.0 + f64::from(n * 7919 % 397)).collect();
        let follower: Vec<f64> = leader.iter().map(|at| at + 0.5).collect();
        let replayed = replay(&trace(&[&leader, &follower]), &setting());
        let misses = |guest: usize, policy| replayed[guest].tallies[&policy].misses;
        assert!(misses(1, Policy::Correlated) < 10, "{}", misses(1, Policy::Correlated));
        assert!(misses(1, Policy::Predicted) > 100, "{}", misses(1, Policy::Predicted));
        assert_eq!(misses(0, Policy::Correlated), misses(0, Policy::Predicted));
        assert!(!replay(&trace(&[&leader]), &setting())[0].tallies.contains_key(&Policy::Correlated));
    }

    #[test]
    fn residency_is_spread_over_the_pieces_that_it_touches() {
        let mut pieces = [0.0; 4];
        let s = Duration::from_secs;
        fill(&mut pieces, s(8), s(1), s(5));
        fill(&mut pieces, s(8), s(7), s(8));
        assert_eq!(pieces, [0.5, 1.0, 0.5, 0.5]);
        fill(&mut pieces, Duration::ZERO, s(0), s(0));
        assert_eq!(pieces, [0.5, 1.0, 0.5, 0.5]);
    }
}
