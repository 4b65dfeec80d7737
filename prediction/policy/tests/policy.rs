//! The policy of a guest, over many gaps.

use std::time::Duration;

use proptest::prelude::*;
use wasm_operator_policy::{Costs, End, GuestPolicy, KNOWN_AFTER, MAX_INTERVALS, Outcome, Price, Rule, Settings};

/// A guest that takes 100 ms to wake and holds 200 MiB: residency has cost as much as a reload after 10 s.
fn costs() -> Costs {
    Costs::new(Duration::from_millis(100), Duration::ZERO, 200 << 20)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The definition of the cost, in seconds of delay, written down a second time.
fn cost(outcome: &Outcome, costs: &Costs, price: Price) -> f64 {
    let work = price.work as f64 / price.delay as f64;
    let reloads = f64::from(outcome.prepared + u32::from(!outcome.hit));
    outcome.delay.saturating_sub(costs.warm_wake).as_secs_f64()
        + outcome.resident.as_secs_f64() * costs.bytes as f64 / price.delay as f64
        + reloads * costs.cold_wake.as_secs_f64() * work
        + f64::from(outcome.prepared) * 0.0002 * work
}

/// The costs per gap of the policy in force and of each rule alone.
fn replay(policy: &mut GuestPolicy, gaps: &[f64]) -> (f64, Vec<(Rule, f64)>) {
    let (costs, price) = (costs(), Price::default());
    let mut ruling = 0.0;
    let mut alone: Vec<(Rule, f64)> = Rule::ALL.map(|rule| (rule, 0.0)).to_vec();
    for gap in gaps {
        let gap = seconds(*gap);
        ruling += cost(&policy.plan(&costs, None).replay(gap, &costs), &costs, price);
        for (rule, sum) in &mut alone {
            *sum += cost(&policy.plan_by(*rule, &costs).replay(gap, &costs), &costs, price);
        }
        policy.gap(gap, End::Event, &costs);
    }
    let gaps = gaps.len() as f64;
    alone.iter_mut().for_each(|(_, sum)| *sum /= gaps);
    (ruling / gaps, alone)
}

fn best(alone: &[(Rule, f64)]) -> f64 {
    alone.iter().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min)
}

fn known(gap: f64) -> GuestPolicy {
    let mut policy = GuestPolicy::new(Settings::default());
    replay(&mut policy, &[gap; 60]);
    policy
}

#[test]
fn one_guest_takes_little_more_than_a_kibibyte() {
    assert!(size_of::<GuestPolicy>() < 1280, "{}", size_of::<GuestPolicy>());
}

#[test]
fn ski_rental_rules_unknown_guests() {
    let mut policy = GuestPolicy::new(Settings::default());
    for _ in 0..KNOWN_AFTER {
        assert_eq!(policy.rule(), Rule::SkiRental);
        assert!((policy.plan(&costs(), None).intervals()[0].until.as_secs_f64() - 10.0).abs() < 0.3);
        policy.gap(seconds(1000.0), End::Event, &costs());
    }
    assert_ne!(policy.rule(), Rule::SkiRental);
}

#[test]
fn a_guest_of_short_gaps_stays_and_one_of_long_irregular_gaps_is_dropped() {
    assert!(known(1.0).plan(&costs(), None).is_resident(seconds(1.0)));
    let mut policy = GuestPolicy::new(Settings::default());
    let gaps: Vec<f64> = (0..100).map(|i| 60.0 * 1.7f64.powi(i * 7 % 9)).collect();
    replay(&mut policy, &gaps);
    let resident: Duration = policy.plan(&costs(), None).intervals().iter().map(|i| i.until - i.from).sum();
    assert!(resident < seconds(10.0), "{:?}", policy.plan(&costs(), None));
}

#[test]
fn a_regular_guest_is_asleep_in_between_and_ready_in_time() {
    let plan = known(60.0).plan(&costs(), None);
    assert!(!plan.is_resident(seconds(30.0)), "{plan:?}");
    let outcome = plan.replay(seconds(60.0), &costs());
    assert!(outcome.hit && outcome.delay == Duration::ZERO && outcome.resident < seconds(10.0), "{outcome:?}");
}

#[test]
fn after_a_change_of_regime_it_is_near_the_best_within_thirty_gaps() {
    for (before, after) in [(2.0, 300.0), (300.0, 2.0), (1.0, 60.0), (60.0, 20.0)] {
        let mut policy = known(before);
        replay(&mut policy, &[after; 30]);
        let (ruling, alone) = replay(&mut policy, &[after; 30]);
        assert!(ruling <= 1.25 * best(&alone) + 1e-3, "{before} -> {after}: {ruling} {alone:?}");
    }
}

#[test]
fn gaps_that_a_timer_ended_are_not_taken_for_events() {
    // A timer each 5 s; events come every five minutes.
    let mut policy = GuestPolicy::new(Settings::default());
    for n in 0..1200 {
        let (gap, end) = if n % 60 == 59 { (4.0, End::Event) } else { (5.0, End::Timer) };
        policy.gap(seconds(gap), end, &costs());
    }
    assert_eq!(policy.explain(&costs(), None).last_gaps, [4.0; 8]);
    let taken = {
        let mut policy = GuestPolicy::new(Settings::default());
        (0..1200).for_each(|_| policy.gap(seconds(5.0), End::Event, &costs()));
        policy.value_at(seconds(3.0), &costs())
    };
    let value = policy.value_at(seconds(3.0), &costs());
    assert!(value < taken / 2.0, "{value} {taken}");
}

#[test]
fn a_guest_that_only_timers_wake_is_not_kept_awake_for_them() {
    for gap in [1.0, 5.0, 60.0] {
        let mut policy = GuestPolicy::new(Settings::default());
        (0..20).for_each(|_| policy.gap(seconds(gap), End::Timer, &costs()));
        let plan = policy.plan(&costs(), Some(seconds(gap)));
        let [interval] = plan.intervals() else { panic!("{gap}: {plan:?}") };
        assert_eq!(interval.from, seconds(gap - 0.1), "{plan:?}");
    }
}

#[test]
fn a_due_timer_has_the_guest_ready_and_asleep_before() {
    let policy = known(10_000.0);
    let plan = policy.plan(&costs(), Some(seconds(600.0)));
    assert!(!plan.is_resident(seconds(599.8)) && plan.is_resident(seconds(600.0)), "{plan:?}");
    assert_eq!(plan.replay(seconds(600.0), &costs()).delay, Duration::ZERO);
}

#[test]
fn the_least_residency_holds_whatever_rules() {
    let mut policy = known(10_000.0);
    policy.configure(Settings { min_resident: seconds(42.0), ..Settings::default() });
    assert_eq!(policy.plan(&costs(), None).intervals()[0].until, seconds(42.0));
}

#[test]
fn pressure_shortens_residency_and_lowers_the_value() {
    let policy = known(2.0);
    let pressed = Costs { pressure: 50.0, ..costs() };
    assert!(policy.plan(&costs(), None).is_resident(seconds(1.5)));
    assert!(!policy.plan(&pressed, None).is_resident(seconds(1.5)));
    assert!(policy.value_at(seconds(1.0), &pressed) < policy.value_at(seconds(1.0), &costs()));
}

#[test]
fn a_guest_about_to_be_needed_is_worth_more_per_byte_than_one_that_is_not_or_is_larger() {
    let soon = known(5.0).value_at(seconds(4.5), &costs());
    assert!(soon > known(5000.0).value_at(seconds(4.5), &costs()));
    assert!(soon > known(5.0).value_at(seconds(4.5), &Costs { bytes: 400 << 20, ..costs() }));
    let unknown = GuestPolicy::new(Settings::default());
    assert!(unknown.value_at(seconds(1.0), &costs()) > unknown.value_at(seconds(9.0), &costs()));
    assert_eq!(unknown.value_at(seconds(11.0), &costs()), 0.0);
}

#[test]
fn silence_ends_residency_whatever_rules() {
    let free_until_break_even = Costs { bytes: 1, ..costs() };
    for gap in [0.5, 30.0, 300.0] {
        let plan = known(gap).plan(&costs(), None);
        assert!(!plan.is_resident(seconds(7200.0)), "{plan:?}");
    }
    assert!(GuestPolicy::new(Settings::default()).plan(&free_until_break_even, None).is_resident(seconds(7200.0)));
}

#[test]
fn good_advice_comes_to_rule_and_bad_advice_does_not() {
    // Gaps that nothing in them explains, and someone who knows them.
    let gaps = |n: u64| 60.0 + (n.wrapping_mul(2_654_435_761) % 1000) as f64;
    let mut policy = GuestPolicy::new(Settings::default());
    for n in 0..60 {
        policy.advise(seconds(gaps(n)));
        policy.gap(seconds(gaps(n)), End::Event, &costs());
    }
    policy.advise(seconds(500.0));
    assert_eq!(policy.rule(), Rule::Advised);
    assert!(policy.plan(&costs(), None).is_resident(seconds(500.0)));

    for bad in [Duration::ZERO, Duration::MAX] {
        let mut policy = GuestPolicy::new(Settings::default());
        for _ in 0..60 {
            policy.advise(bad);
            policy.gap(seconds(60.0), End::Event, &costs());
        }
        assert_ne!(policy.rule(), Rule::Advised);
    }
}

#[test]
fn the_explanation_is_that_of_the_plan() {
    let timer = Some(seconds(600.0));
    for policy in [known(60.0), known(1.0), GuestPolicy::new(Settings::default())] {
        let (plan, explanation) = (policy.plan(&costs(), timer), policy.explain(&costs(), timer));
        assert_eq!((explanation.rule, &explanation.resident[..]), (plan.rule(), plan.intervals()));
        assert!(explanation.scores.is_sorted_by(|a, b| a.cost <= b.cost));
        assert!(explanation.last_gaps.len() <= 8);
    }
}

#[test]
fn an_explanation_reads_well_and_is_json() {
    let mut policy = GuestPolicy::new(Settings::default());
    policy.gap(seconds(12.5), End::Event, &costs());
    policy.gap(seconds(3.0), End::Event, &costs());
    let explanation = policy.explain(&costs(), None);
    let text = explanation.to_string();
    assert!(text.starts_with("rule in force: ski-rental (learnt 2 gaps, others compete from 8 on)\n"), "{text}");
    assert!(text.contains("last gaps, newest first: 3.0s 12.5s\n"), "{text}");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["rule"], "ski-rental");
    assert_eq!(json["last_gaps"], serde_json::json!([3.0, 12.5]));
    assert_eq!(json["resident"][0]["from"], 0.0);
    let never = wasm_operator_policy::Plan::resident_until(Rule::Never, Duration::MAX);
    assert_eq!(serde_json::to_value(never.intervals()).unwrap(), serde_json::json!([{"from": 0.0, "until": null}]));
}

/// Gaps between a tenth of a millisecond and a day.
fn any_gap() -> impl Strategy<Value = f64> {
    (-9.0f64..11.4).prop_map(f64::exp)
}

fn any_costs() -> impl Strategy<Value = Costs> {
    (0u64..2_000_000, 0u64..1000, 0u64..(1 << 32), 1.0f32..100.0).prop_map(|(cold, warm, bytes, pressure)| Costs {
        cold_wake: Duration::from_micros(cold),
        warm_wake: Duration::from_micros(warm),
        bytes,
        pressure,
    })
}

proptest! {
    /// The optimum knows the gap and chooses when to drop.
    #[test]
    fn ski_rental_never_costs_more_than_twice_the_optimum(gap in any_gap(), costs in any_costs()) {
        let costs = Costs { pressure: 1.0, ..costs };
        let policy = GuestPolicy::new(Settings::default());
        let price = Price::default();
        let gap = seconds(gap);
        let plan = policy.plan(&costs, None);
        prop_assert_eq!(plan.rule(), Rule::SkiRental);
        let of = |rule| cost(&policy.plan_by(rule, &costs).replay(gap, &costs), &costs, price);
        let optimum = of(Rule::Never).min(of(Rule::Immediately));
        let paid = cost(&plan.replay(gap, &costs), &costs, price);
        prop_assert!(paid <= 2.0 * optimum * (1.0 + 1e-6) + 1e-8, "{} {}", paid, optimum);
    }

    #[test]
    fn nonsense_gives_sound_plans(
        gaps in prop::collection::vec((any::<u64>(), any::<bool>(), any::<Option<u64>>()), 0..60),
        cold in any::<u64>(), warm in any::<u64>(), bytes in any::<u64>(), pressure in any::<f32>(),
        delay in any::<u64>(), work in any::<u64>(), timer in any::<Option<u64>>(), age in any::<u64>(),
    ) {
        let price = Price { delay, work };
        let costs = Costs { cold_wake: Duration::from_nanos(cold), warm_wake: Duration::from_nanos(warm), bytes, pressure };
        let mut policy = GuestPolicy::new(Settings { price, min_resident: Duration::from_nanos(warm) });
        for (gap, timer, advice) in gaps {
            if let Some(advice) = advice {
                policy.advise(Duration::from_secs(advice));
            }
            policy.gap(Duration::from_nanos(gap), if timer { End::Timer } else { End::Event }, &costs);
        }
        policy.gap(Duration::MAX, End::Event, &costs);
        policy.gap(Duration::ZERO, End::Timer, &costs);
        let plan = policy.plan(&costs, timer.map(Duration::from_secs));
        prop_assert!(plan.intervals().len() <= MAX_INTERVALS);
        prop_assert!(plan.intervals().iter().all(|interval| interval.from < interval.until));
        prop_assert!(plan.intervals().is_sorted_by(|a, b| a.until < b.from));
        let value = policy.value_at(Duration::from_nanos(age), &costs);
        prop_assert!(value.is_finite() && value >= 0.0, "{}", value);
        prop_assert!(policy.explain(&costs, None).scores.iter().all(|score| !score.cost.is_nan()));
    }

    /// On gaps from one distribution, the rule in force costs little more than the best rule alone would.
    #[test]
    fn on_a_stationary_trace_the_scoreboard_finds_the_best_rule(
        kinds in prop::collection::vec((0.05f64..400.0, 0.0f64..0.5), 1..4), seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let gaps: Vec<f64> = (0..600).map(|_| {
            let (gap, jitter) = kinds[(uniform() * kinds.len() as f64) as usize];
            gap * (1.0 + jitter * (uniform() - 0.5))
        }).collect();
        let mut policy = GuestPolicy::new(Settings::default());
        replay(&mut policy, &gaps[..200]);
        let (ruling, alone) = replay(&mut policy, &gaps[200..]);
        prop_assert!(ruling <= 1.15 * best(&alone) + 1e-3, "{} {:?}", ruling, alone);
    }

    /// The same ages give the same decisions, whatever the time of day: a policy is a function of gaps alone.
    #[test]
    fn decisions_depend_on_nothing_but_the_gaps(gaps in prop::collection::vec(any_gap(), 0..50)) {
        let learn = || {
            let mut policy = GuestPolicy::new(Settings::default());
            gaps.iter().for_each(|gap| policy.gap(seconds(*gap), End::Event, &costs()));
            policy.explain(&costs(), None)
        };
        prop_assert_eq!(learn(), learn());
    }
}
