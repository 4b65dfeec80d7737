//! Who goes first: across guests by weight, within a guest by priority, and nobody starves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use proptest::prelude::*;
use wasm_operator_core::dispatch::{
    Completion, Dispatcher, GuestId, Job, Key, Mark, Options, Settings, SleepPolicy, Step, Time,
};
use wasm_operator_core::fair::MIN_COST;
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::queue::{LONGEST_WAITING_EVERY, Queue};
use wasm_operator_core::reconcile::Cause;

const NOW: Time = Time::from_micros(1);

fn key(name: &str) -> Key {
    Key { controller: "c".into(), object: ObjectRef { namespace: None, name: name.into() } }
}

fn guests(dispatcher: &mut Dispatcher, weights: &[u32]) -> Vec<GuestId> {
    let sleep = SleepPolicy::Never;
    let guests: Vec<_> = weights
        .iter()
        .map(|weight| dispatcher.add(NOW, Settings { weight: *weight, sleep, ..Settings::default() }))
        .collect();
    while dispatcher.step(NOW).is_some() {}
    for guest in &guests {
        dispatcher.loaded(NOW, *guest);
    }
    guests
}

fn run(dispatcher: &mut Dispatcher) -> Job {
    match dispatcher.step(NOW) {
        Some(Step::Run(job)) => job,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The theorem of start-time fair queueing, see `fair.rs`: with one run at a time, over every interval in which two
    /// guests always have work, |W_f / w_f - W_g / w_g| <= c_f / w_f + c_g / w_g.
    #[test]
    fn busy_guests_get_service_by_weight_over_every_interval(
        weights in prop::collection::vec(1_u32..500, 2..6),
        costs in prop::collection::vec(50_u64..5_000, 400),
        from in 0_usize..200,
    ) {
        let mut dispatcher = Dispatcher::new(Options { max_runs: 1, ..Options::default() });
        let guests = guests(&mut dispatcher, &weights);
        for guest in &guests {
            dispatcher.mark(NOW, *guest, Mark::new(key("a"), Cause::Change));
        }
        let dearest = *costs.iter().max().unwrap() as f64;
        let mut service = vec![0.0; guests.len()];
        for (number, cost) in costs.iter().enumerate() {
            if number == from {
                service.fill(0.0);
            }
            let job = run(&mut dispatcher);
            dispatcher.mark(NOW, job.guest, Mark::new(key("a"), Cause::Change));
            dispatcher.finished(NOW, job.guest, &job.key, Completion::Done, Duration::from_micros(*cost));
            service[guests.iter().position(|guest| *guest == job.guest).unwrap()] += *cost as f64;
            for f in 0..guests.len() {
                for g in 0..f {
                    let (wf, wg) = (f64::from(weights[f]), f64::from(weights[g]));
                    let gap = (service[f] / wf - service[g] / wg).abs();
                    let bound = dearest / wf + dearest / wg;
                    prop_assert!(gap <= bound + 0.01, "{gap} > {bound}: {service:?} of {weights:?}");
                }
            }
        }
    }

    /// A guest whose last run cost `c` waits until another has had `c × w_other / w_own` and the run that follows.
    #[test]
    fn a_guest_with_work_waits_no_longer_than_the_weights_say(
        weights in prop::collection::vec(1_u32..500, 2..6),
        cost in 50_u64..5_000,
        rounds in 50_usize..300,
    ) {
        let mut dispatcher = Dispatcher::new(Options { max_runs: 1, ..Options::default() });
        let guests = guests(&mut dispatcher, &weights);
        for guest in &guests {
            dispatcher.mark(NOW, *guest, Mark::new(key("a"), Cause::Change));
        }
        let mut since = vec![vec![0_u32; guests.len()]; guests.len()];
        for _ in 0..rounds {
            let job = run(&mut dispatcher);
            dispatcher.mark(NOW, job.guest, Mark::new(key("a"), Cause::Change));
            dispatcher.finished(NOW, job.guest, &job.key, Completion::Done, Duration::from_micros(cost));
            let served = guests.iter().position(|guest| *guest == job.guest).unwrap();
            since[served].fill(0);
            for (waiting, counts) in since.iter_mut().enumerate() {
                if waiting != served {
                    counts[served] += 1;
                    let bound = weights[served].div_ceil(weights[waiting]) + 1;
                    prop_assert!(counts[served] <= bound, "{} > {bound} of {weights:?}", counts[served]);
                }
            }
        }
    }

    /// While fresh changes keep coming, a key that `n` keys have outwaited starts within `8 × (n + 1)` starts.
    #[test]
    fn no_key_starves_behind_fresh_changes(low in 1_usize..20, changes in prop::collection::vec(0_u8..4, 400)) {
        let mut queue = Queue::default();
        for number in 0..low {
            queue.mark(NOW, Mark::new(key(&format!("low {number}")), Cause::Initial));
        }
        let (mut starts, mut started) = (0, 0);
        for (number, count) in changes.into_iter().enumerate() {
            queue.mark(NOW, Mark::new(key(&format!("fresh {number}")), Cause::Change));
            for more in 0..count {
                queue.mark(NOW, Mark::new(key(&format!("fresh {number} {more}")), Cause::Change));
            }
            let job = queue.start(NOW).unwrap();
            queue.finish(NOW, &job.key, Completion::Done, |_| Duration::ZERO);
            starts += 1;
            if job.cause == Cause::Initial {
                prop_assert_eq!(&*job.key.object.name, &format!("low {started}"), "in the order of their arrival");
                started += 1;
            }
            prop_assert!(started >= (starts / LONGEST_WAITING_EVERY as usize).min(low));
        }
    }
}

#[test]
fn a_fresh_change_overtakes_a_start_up_storm() {
    let mut queue = Queue::default();
    for number in 0..10_000 {
        queue.mark(NOW, Mark::new(key(&number.to_string()), Cause::Initial));
    }
    queue.mark(NOW, Mark::new(key("9000"), Cause::Change));
    queue.mark(NOW, Mark::new(key("fresh"), Cause::Change));
    queue.mark(NOW, Mark::new(key("9000"), Cause::Resync));
    let first = queue.start(NOW).unwrap();
    assert_eq!((first.key, first.cause), (key("9000"), Cause::Change));
    assert_eq!(queue.start(NOW).unwrap().key, key("fresh"));
    assert_eq!(queue.start(NOW).unwrap().key, key("0"));
}

#[test]
fn a_resync_does_not_make_a_timer_late() {
    let mut queue = Queue::default();
    for number in 0..100 {
        queue.mark(NOW, Mark::new(key(&number.to_string()), Cause::Resync));
    }
    let second = Duration::from_secs(1);
    queue.delay(NOW, key("timer"), second, Cause::Timer, Cause::Timer.into());
    queue.mark(NOW, Mark::new(key("timer"), Cause::Resync));
    assert_eq!(queue.next_time(), Some(NOW + second));
    assert_eq!(queue.start(NOW).unwrap().key, key("0"));
    queue.advance(NOW + second);
    let started = queue.start(NOW + second).unwrap();
    assert_eq!((started.key, started.cause), (key("timer"), Cause::Timer));
    assert_eq!(queue.next_time(), None);
}

#[test]
fn a_queue_keeps_nothing_of_keys_that_are_done() {
    let mut queue = Queue::default();
    for (number, completion) in [Completion::Done, Completion::Terminal].into_iter().cycle().take(100).enumerate() {
        let key = key(&number.to_string());
        queue.mark(NOW, Mark::new(key.clone(), Cause::Change));
        queue.start(NOW).unwrap();
        queue.finish(NOW, &key, Completion::Retry, |_| Duration::ZERO);
        queue.advance(NOW);
        queue.start(NOW).unwrap();
        assert!(queue.finish(NOW, &key, completion, |_| Duration::ZERO));
        assert!(!queue.finish(NOW, &key, completion, |_| Duration::ZERO), "a second answer is ignored");
    }
    assert!(queue.is_empty());
    assert!(queue.depth().is_empty());
    assert_eq!((queue.running(), queue.delayed(), queue.adds(), queue.retries()), (0, 0, 200, 100));
}

#[test]
fn a_guest_cannot_hold_the_host_by_reporting_no_cost() {
    let mut dispatcher = Dispatcher::new(Options { max_runs: 1, ..Options::default() });
    let guests = guests(&mut dispatcher, &[100, 100]);
    for guest in &guests {
        dispatcher.mark(NOW, *guest, Mark::new(key("a"), Cause::Change));
    }
    let mut served = [0; 2];
    for _ in 0..100 {
        let job = run(&mut dispatcher);
        let free = job.guest == guests[0];
        served[usize::from(!free)] += 1;
        dispatcher.mark(NOW, job.guest, Mark::new(key("a"), Cause::Change));
        let cost = if free { Duration::ZERO } else { MIN_COST };
        dispatcher.finished(NOW, job.guest, &job.key, Completion::Done, cost);
    }
    assert_eq!(served, [50, 50]);
}
