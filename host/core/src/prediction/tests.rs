use super::*;

const MIB: u64 = 1 << 20;

fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

/// A guest whose wake is dear: 1 s for 10 MiB.
fn predicted() -> Prediction {
    let mut prediction = Prediction::new(SleepPolicy::default());
    prediction.woke(Duration::from_secs(1));
    prediction.holds(10 * MIB);
    prediction
}

#[test]
fn nothing_is_resident_before_anything_was_measured() {
    let mut prediction = Prediction::new(SleepPolicy::default());
    prediction.idle(at(1.0), None);
    assert_eq!(prediction.resident_until(at(1.0)), None);
    assert_eq!(prediction.ready_at(at(1.0)), None);
    assert_eq!(prediction.explain(None), None);
}

#[test]
fn what_only_the_first_call_of_an_instance_takes_is_part_of_the_wake() {
    let mut prediction = predicted();
    let wake = |prediction: &Prediction| prediction.costs().unwrap().cold_wake;
    prediction.called(true, Duration::from_millis(90));
    assert_eq!(wake(&prediction), Duration::from_millis(1090), "nothing is known of later calls");
    prediction.called(false, Duration::from_millis(10));
    assert_eq!(wake(&prediction), Duration::from_millis(1080));
    prediction.called(true, Duration::from_millis(9));
    prediction.called(true, Duration::ZERO);
    prediction.called(true, Duration::ZERO);
    prediction.called(true, Duration::ZERO);
    assert_eq!(wake(&prediction), Duration::from_secs(1), "calls that are shorter do not shorten the wake");
}

#[test]
fn an_unknown_guest_stays_as_long_as_its_wake_is_worth() {
    let mut prediction = predicted();
    prediction.idle(at(1.0), None);
    let Some(Some(until)) = prediction.resident_until(at(1.0)) else { panic!("not resident for a while") };
    let costs = prediction.costs().unwrap();
    let break_even = wasm_operator_policy::Price::default().break_even(&costs).unwrap();
    assert!(until.since(at(1.0)).abs_diff(break_even) < Duration::from_secs(1), "{until:?}");
}

#[test]
fn a_regular_guest_is_dropped_and_made_ready_before_its_event() {
    let mut prediction = Prediction::new(SleepPolicy::default());
    // Dear to keep: 4 GiB, so that a minute between two events is too long.
    prediction.woke(Duration::from_secs(1));
    prediction.holds(4 << 30);
    let mut now = 0.0;
    for _ in 0..40 {
        prediction.idle(at(now), None);
        now += 60.0;
        prediction.busy(at(now), End::Event);
    }
    prediction.idle(at(now), None);
    assert_eq!(prediction.resident_until(at(now + 20.0)), None, "{:?}", prediction.plan);
    let ready = prediction.ready_at(at(now + 20.0)).expect("made ready again");
    assert!(ready > at(now + 50.0) && ready < at(now + 60.0), "{ready:?} of {now}");
    prediction.busy(at(now + 60.0), End::Event);
    assert!(prediction.tally().hits > 0, "{:?}", prediction.tally());
}

#[test]
fn hits_and_misses_are_counted_by_events_alone() {
    let mut prediction = predicted();
    prediction.idle(at(1.0), None);
    assert!(prediction.busy(at(1.5), End::Event));
    assert_eq!((prediction.tally().hits, prediction.tally().misses), (1, 0));
    assert_eq!(prediction.tally().delay_saved, Duration::from_secs(1));
    prediction.idle(at(2.0), None);
    assert!(!prediction.busy(at(3.0), End::Timer));
    prediction.idle(at(4.0), None);
    assert!(prediction.busy(at(80_000.0), End::Event));
    assert_eq!((prediction.tally().hits, prediction.tally().misses), (1, 1));
}

#[test]
fn work_that_was_there_before_the_guest_was_idle_ends_no_gap() {
    let mut prediction = predicted();
    prediction.idle(at(5.0), None);
    assert!(!prediction.busy(at(4.0), End::Event));
    assert_eq!(prediction.tally(), Tally::default());
}

#[test]
fn a_guest_held_for_another_ones_write_is_resident_until_then_and_wasted_if_nothing_comes() {
    let mut prediction = predicted();
    prediction.idle(at(1.0), None);
    prediction.give_up();
    assert!(prediction.may_follow(at(2.0)));
    prediction.hold(at(3.0));
    assert_eq!(prediction.resident_until(at(2.0)), Some(Some(at(3.0))));
    assert!(!prediction.may_follow(at(2.0)));
    assert_eq!(prediction.resident_until(at(3.0)), None);
    prediction.dropped(at(3.0));
    assert_eq!(prediction.tally().wasted, 1);
}

#[test]
fn modes_without_prediction_learn_nothing_and_do_as_they_say() {
    for (policy, until) in [
        (SleepPolicy::Never, Some(None)),
        (SleepPolicy::Immediately, None),
        (SleepPolicy::Fixed(Duration::from_secs(2)), Some(Some(at(3.0)))),
    ] {
        let mut prediction = Prediction::new(policy);
        prediction.woke(Duration::from_secs(1));
        prediction.idle(at(1.0), None);
        assert_eq!(prediction.resident_until(at(1.0)), until, "{policy:?}");
        prediction.advise(Duration::from_secs(5), None);
        prediction.busy(at(2.0), End::Event);
        assert_eq!(prediction.tally(), Tally::default());
        assert_eq!(prediction.explain(None), None);
    }
}

#[test]
fn a_change_of_the_settings_keeps_what_was_learnt() {
    let mut prediction = predicted();
    prediction.idle(at(1.0), None);
    prediction.busy(at(2.0), End::Event);
    prediction
        .configure(SleepPolicy::Predicted(Settings { min_resident: Duration::from_secs(9), ..Settings::default() }));
    assert_eq!(prediction.explain(None).unwrap().gaps, 1);
    prediction.configure(SleepPolicy::Never);
    prediction.configure(SleepPolicy::default());
    assert_eq!(prediction.explain(None).unwrap().gaps, 0);
}
