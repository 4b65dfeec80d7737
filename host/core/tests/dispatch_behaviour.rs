//! The dispatcher's behaviour, one example per rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::time::Duration;

use common::{Host, MS, S};
use wasm_operator_core::dispatch::{
    Completion, GuestId, Job, Key, Mark, Options, Path, Priority, Settings, SleepPolicy, SleepReason, State, Step,
    Time, WakeReason,
};
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::{Cause, Tombstone};

fn key(name: &str) -> Key {
    Key { controller: "c".into(), object: ObjectRef { namespace: Some("ns".into()), name: name.into() } }
}

impl Host {
    fn mark(&mut self, guest: GuestId, name: &str, cause: Cause) {
        self.dispatcher.mark(self.now, guest, Mark::new(key(name), cause));
    }

    fn finish(&mut self, job: &Job, completion: Completion) {
        self.dispatcher.finished(self.now, job.guest, &job.key, completion, MS);
    }

    fn complete(&mut self, guest: GuestId, name: &str, completion: Completion) -> Job {
        self.mark(guest, name, Cause::Change);
        let job = self.run();
        self.finish(&job, completion);
        job
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Goes to where something is due, and returns how long that took.
    fn pass_to_next(&mut self) -> Duration {
        let before = self.now;
        self.now = self.now.max(self.dispatcher.next_time().expect("nothing is due"));
        self.now.since(before)
    }
}

fn sleeping_after(idle: Duration) -> Settings {
    Settings { sleep: SleepPolicy::Fixed(idle), ..Settings::default() }
}

fn sleepless() -> Settings {
    Settings { sleep: SleepPolicy::Never, ..Settings::default() }
}

#[test]
fn a_change_wakes_the_guest_and_a_quiet_guest_goes_back_to_sleep() {
    let (mut host, guest) = Host::with_guest(sleeping_after(S));
    assert_eq!(host.state(guest), State::Cold);
    let job = host.complete(guest, "a", Completion::Done);
    assert_eq!((job.path, job.wake, job.cause), (Path::Cold, Some(WakeReason::Event), Cause::Change));
    assert_eq!(host.state(guest), State::Awake);

    host.pass(500 * MS);
    let job = host.complete(guest, "a", Completion::Done);
    assert_eq!((job.path, job.wake), (Path::Warm, None));
    assert_eq!(host.steps(), []);
    assert_eq!(host.pass_to_next(), S);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);
    assert_eq!(host.state(guest), State::Dormant);
    assert_eq!(host.dispatcher.snapshot(host.now, guest).unwrap().resident, 1_500 * MS);
    assert_eq!(host.dispatcher.next_time(), None);

    let job = host.complete(guest, "a", Completion::Done);
    assert_eq!((job.path, job.wake), (Path::Dormant, Some(WakeReason::Event)));
}

#[test]
fn an_idle_time_of_zero_sleeps_after_the_last_key_and_none_never_sleeps() {
    let (mut host, guest) = Host::with_guest(sleeping_after(Duration::ZERO));
    host.mark(guest, "a", Cause::Change);
    host.mark(guest, "b", Cause::Change);
    let a = host.run();
    host.finish(&a, Completion::Done);
    let b = host.run();
    assert_eq!(b.path, Path::Warm, "no sleep while there is work");
    host.finish(&b, Completion::Done);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);

    let (mut host, guest) = Host::with_guest(sleepless());
    host.complete(guest, "a", Completion::Done);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn a_thousand_quiet_guests_cause_nothing_and_one_event_wakes_one() {
    let mut host = Host::new(Options::default());
    let guests: Vec<_> = (0..1_000).map(|_| host.add(Settings::default())).collect();
    assert_eq!(host.dispatcher.next_time(), None);
    host.pass(3_600 * S);
    assert_eq!(host.steps(), []);
    host.mark(guests[500], "a", Cause::Change);
    assert_eq!(host.run().guest, guests[500]);
}

#[test]
fn a_requeue_wakes_a_sleeping_guest_to_the_microsecond() {
    let (mut host, guest) = Host::with_guest(sleeping_after(S));
    host.complete(guest, "a", Completion::RequeueAfter(60 * S));
    assert_eq!(host.pass_to_next(), S);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);
    assert_eq!(host.pass_to_next(), 59 * S);
    host.now = Time::from_micros(host.now.as_micros() - 1);
    assert_eq!(host.steps(), []);
    host.pass(Duration::from_micros(1));
    let job = host.run();
    assert_eq!((job.cause, job.wake, job.queued), (Cause::Timer, Some(WakeReason::Timer), host.now));
}

#[test]
fn a_change_before_the_requeue_runs_at_once_and_takes_its_place() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.complete(guest, "a", Completion::RequeueAfter(60 * S));
    host.pass(S);
    assert_eq!(host.complete(guest, "a", Completion::Done).cause, Cause::Change);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn a_change_during_a_run_is_reconciled_after_it_and_supersedes_the_requeue() {
    let (mut host, guest) = Host::with_guest(Settings { concurrency: 2, ..sleepless() });
    host.mark(guest, "a", Cause::Change);
    let first = host.run();
    host.mark(guest, "a", Cause::Change);
    host.mark(guest, "a", Cause::Initial);
    assert_eq!(host.steps(), [], "the key runs already, though the guest has a free instance");
    host.pass(S);
    host.finish(&first, Completion::RequeueAfter(60 * S));
    let second = host.run();
    assert_eq!((second.cause, second.priority), (Cause::Change, Priority::NORMAL));
    host.finish(&second, Completion::Done);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn failures_back_off_exponentially_up_to_the_maximum_and_success_forgets_them() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.mark(guest, "a", Cause::Change);
    for attempt in 0..25 {
        let job = host.run();
        assert_eq!(job.attempt, attempt);
        assert_eq!(job.cause, if attempt == 0 { Cause::Change } else { Cause::Retry });
        host.finish(&job, Completion::Retry);
        assert_eq!(host.steps(), []);
        let full = (5 * MS).saturating_mul(1 << attempt).min(1_000 * S);
        let waited = host.pass_to_next();
        assert!(waited <= full && waited >= full.mul_f64(0.8), "attempt {attempt}: {waited:?} of {full:?}");
    }
    let job = host.run();
    host.finish(&job, Completion::Done);
    host.mark(guest, "a", Cause::Change);
    assert_eq!(host.run().attempt, 0);
    assert_eq!(host.dispatcher.snapshot(host.now, guest).unwrap().retries, 25);
}

#[test]
fn a_failure_with_a_delay_of_its_own_counts_as_a_failure_and_leaves_the_backoff_alone() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.mark(guest, "a", Cause::Change);
    let mut fail = |attempt: u32, completion, least: Duration, most: Duration| {
        let job = host.run();
        assert_eq!(job.attempt, attempt);
        host.finish(&job, completion);
        assert_eq!(host.steps(), []);
        let waited = host.pass_to_next();
        assert!(waited >= least && waited <= most, "attempt {attempt}: {waited:?}");
    };
    fail(0, Completion::Retry, 4 * MS, 5 * MS);
    for attempt in 1..20 {
        fail(attempt, Completion::RetryAfter(60 * S), 60 * S, 60 * S);
    }
    fail(20, Completion::Retry, 8 * MS, 10 * MS);
    let job = host.run();
    assert_eq!((job.attempt, job.cause), (21, Cause::Retry));
    host.finish(&job, Completion::Done);
    assert_eq!(host.dispatcher.snapshot(host.now, guest).unwrap().retries, 21);

    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    assert_eq!(job.attempt, 0);
    host.finish(&job, Completion::RetryAfter(Duration::MAX));
    assert_eq!(host.complete(guest, "a", Completion::Done).cause, Cause::Change, "a change does not wait for it");
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn a_change_during_a_backoff_runs_at_once_and_keeps_the_count_of_failures() {
    let (mut host, guest) = Host::with_guest(sleepless());
    for _ in 0..10 {
        host.complete(guest, "a", Completion::Retry);
    }
    assert_eq!(host.complete(guest, "a", Completion::Done).attempt, 10);
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn a_terminal_failure_waits_for_a_change_and_is_forgotten() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.complete(guest, "a", Completion::Retry);
    host.pass_to_next();
    let job = host.run();
    host.finish(&job, Completion::Terminal);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.next_time(), None);
    assert_eq!(host.complete(guest, "a", Completion::Done).attempt, 0);
}

#[test]
fn tombstones_reach_the_guest_until_a_reconcile_succeeds() {
    let (mut host, guest) = Host::with_guest(sleepless());
    let delete = |host: &mut Host, uid: &str| {
        let deleted = Some(Tombstone { uid: uid.into(), metadata: b"{}".as_slice().into() });
        let trace = Some(format!("trace of {uid}"));
        let mark = Mark { deleted, traceparent: trace, ..Mark::new(key("a"), Cause::Change) };
        host.dispatcher.mark(host.now, guest, mark);
    };
    let uids = |job: &Job| job.deleted.iter().map(|deleted| deleted.uid.to_string()).collect::<Vec<_>>();

    delete(&mut host, "1");
    let job = host.run();
    assert_eq!(uids(&job), ["1"]);
    host.finish(&job, Completion::Retry);
    host.pass_to_next();
    let job = host.run();
    assert_eq!((uids(&job), job.traceparent.as_deref()), (vec!["1".to_owned()], Some("trace of 1")));
    for uid in 2..=12 {
        delete(&mut host, &uid.to_string());
    }
    host.finish(&job, Completion::Retry);
    let job = host.run();
    assert_eq!(uids(&job), ["5", "6", "7", "8", "9", "10", "11", "12"], "the newest 8");
    assert_eq!(job.traceparent.as_deref(), Some("trace of 12"));
    host.finish(&job, Completion::Done);
    assert_eq!(uids(&host.complete(guest, "a", Completion::Done)), [""; 0]);
}

#[test]
fn a_burst_for_a_sleeping_guest_waits_for_the_window_and_no_longer() {
    let settings = Settings { coalesce: Some(30 * MS), ..sleeping_after(S) };
    let (mut host, guest) = Host::with_guest(settings);
    let first = host.now;
    for _ in 0..100 {
        host.mark(guest, "a", Cause::Change);
        assert_eq!(host.steps(), []);
        host.pass(Duration::from_micros(290));
    }
    host.pass_to_next();
    assert_eq!(host.now.since(first), 30 * MS);
    let job = host.run();
    host.finish(&job, Completion::Done);
    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    assert_eq!(job.path, Path::Warm, "an awake guest waits for nothing");
    host.finish(&job, Completion::RequeueAfter(10 * S));
    host.pass_to_next();
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);

    host.pass(9 * S - 10 * MS);
    host.mark(guest, "b", Cause::Change);
    assert_eq!(host.steps(), []);
    assert_eq!(host.pass_to_next(), 10 * MS, "a timer does not wait for the window");
    host.run();
}

#[test]
fn the_echo_of_an_own_write_delays_sleep_for_five_seconds_at_most() {
    let (mut host, guest) = Host::with_guest(sleeping_after(S));
    let job = host.complete(guest, "a", Completion::Done);
    assert_eq!(job.guest, guest);
    host.dispatcher.echo_pending(host.now, guest, true);
    host.pass(4 * S);
    host.dispatcher.echo_pending(host.now, guest, true);
    assert_eq!(host.steps(), []);
    assert_eq!(host.pass_to_next(), S, "a second report does not prolong it");
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);

    host.dispatcher.echo_pending(host.now, guest, false);
    host.complete(guest, "a", Completion::Done);
    host.dispatcher.echo_pending(host.now, guest, true);
    host.pass(2 * S);
    assert_eq!(host.steps(), []);
    host.dispatcher.echo_pending(host.now, guest, false);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);
}

#[test]
fn a_broken_guest_is_held_back_ever_longer_and_its_keys_survive() {
    let (mut host, guest) = Host::with_guest(Settings::default());
    let other = host.add(sleepless());
    host.mark(guest, "a", Cause::Change);
    for attempt in 0..12 {
        let job = host.run();
        assert_eq!((job.guest, job.attempt), (guest, attempt));
        host.finish(&job, Completion::Broken);
        assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Failed)]);
        let State::Failed { until, attempts } = host.state(guest) else { panic!("{:?}", host.state(guest)) };
        assert_eq!(attempts, attempt + 1);
        let full = S.saturating_mul(1 << attempt).min(300 * S);
        let waited = until.since(host.now);
        assert!(waited <= full && waited >= full.mul_f64(0.8), "attempt {attempt}: {waited:?} of {full:?}");

        assert_eq!(host.complete(other, "c", Completion::Done).guest, other, "others are served");
        assert_eq!(host.dispatcher.next_time(), Some(until));
        host.now = until;
    }
}

#[test]
fn keys_that_were_queued_behind_a_fault_run_when_the_guest_may_run_again() {
    let (mut host, guest) = Host::with_guest(Settings::default());
    for name in ["a", "b", "c"] {
        host.mark(guest, name, Cause::Change);
    }
    let job = host.run();
    host.finish(&job, Completion::Broken);
    host.mark(guest, "d", Cause::Change);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Failed)]);
    host.pass_to_next();
    let mut names = Vec::new();
    for _ in 0..4 {
        let job = host.run();
        names.push(job.key.object.name.to_string());
        host.finish(&job, Completion::Done);
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn faults_are_forgotten_after_a_good_time_as_long_as_the_last_wait() {
    let (mut host, guest) = Host::with_guest(sleepless());
    let attempts = |host: &Host| match host.state(guest) {
        State::Failed { attempts, .. } => attempts,
        other => panic!("{other:?}"),
    };
    for expected in 1..=3 {
        host.complete(guest, "a", Completion::Broken);
        assert_eq!(attempts(&host), expected);
        host.steps();
        host.pass_to_next();
        let job = host.run();
        host.finish(&job, Completion::Done);
    }
    host.pass(4 * S);
    host.complete(guest, "a", Completion::Done);
    host.complete(guest, "a", Completion::Broken);
    assert_eq!(attempts(&host), 1);
}

#[test]
fn instances_that_break_together_are_one_fault_and_good_ones_do_not_end_it() {
    let (mut host, guest) = Host::with_guest(Settings { concurrency: 3, ..sleepless() });
    for name in ["a", "b", "c"] {
        host.mark(guest, name, Cause::Change);
    }
    let jobs: Vec<Job> =
        host.steps().into_iter().map(|step| if let Step::Run(job) = step { job } else { panic!("{step:?}") }).collect();
    host.finish(&jobs[0], Completion::Broken);
    host.finish(&jobs[1], Completion::Broken);
    assert_eq!(host.steps(), [], "the third instance is still in use");
    assert!(matches!(host.state(guest), State::Failed { attempts: 1, .. }));
    host.finish(&jobs[2], Completion::Done);
    assert!(matches!(host.state(guest), State::Failed { attempts: 1, .. }));
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Failed)]);
}

#[test]
fn components_asleep_longest_are_unloaded_down_to_the_budget() {
    let mut host = Host::new(Options { component_bytes: Some(250), ..Options::default() });
    let guests: Vec<_> = (0..3).map(|_| host.add(sleeping_after(S))).collect();
    for guest in [guests[1], guests[0], guests[2]] {
        host.complete(guest, "a", Completion::Done);
        host.dispatcher.set_bytes(guest, 100);
        assert_eq!(host.steps(), [], "what is awake is not unloaded");
        host.pass(MS);
    }
    host.pass(S);
    let slept = |guest| Step::Sleep(guest, SleepReason::Idle);
    let steps = host.steps();
    assert_eq!(steps, [slept(guests[1]), slept(guests[0]), slept(guests[2]), Step::Unload(guests[1])]);
    assert_eq!(host.state(guests[1]), State::Cold);
    assert_eq!(host.state(guests[0]), State::Dormant);
    assert_eq!(host.dispatcher.next_time(), None);

    let job = host.complete(guests[1], "a", Completion::Done);
    assert_eq!(job.path, Path::Cold);
    host.dispatcher.set_bytes(guests[1], 100);
    assert_eq!(host.dispatcher.next_time(), Some(Time::ZERO));
    assert_eq!(host.steps(), [Step::Unload(guests[0])]);
}

#[test]
fn a_reload_waits_for_the_runs_and_keeps_the_keys() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.complete(guest, "timer", Completion::RequeueAfter(10 * S));
    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    host.dispatcher.set_bytes(guest, 100);
    host.dispatcher.reload(host.now, guest);
    host.mark(guest, "b", Cause::Change);
    assert_eq!(host.steps(), [], "the old component runs, nothing new starts");
    host.finish(&job, Completion::Retry);
    assert_eq!(host.dispatcher.snapshot(host.now, guest).unwrap().bytes, 100);
    assert_eq!(host.steps(), [Step::Load(guest)]);
    let snapshot = host.dispatcher.snapshot(host.now, guest).unwrap();
    assert_eq!((snapshot.state, snapshot.bytes), (State::Loading, 0));
    host.pass(20 * S);
    assert_eq!(host.steps(), []);
    host.dispatcher.loaded(host.now, guest);
    let mut names = Vec::new();
    for _ in 0..3 {
        let job = host.run();
        names.push(job.key.object.name.to_string());
        host.finish(&job, Completion::Done);
    }
    assert_eq!(names, ["b", "a", "timer"]);
}

#[test]
fn a_component_that_cannot_be_loaded_is_tried_again_with_backoff() {
    let mut host = Host::new(Options::default());
    let guest = host.dispatcher.add(host.now, Settings::default());
    host.mark(guest, "a", Cause::Change);
    for attempt in 0..5 {
        assert_eq!(host.steps(), [Step::Load(guest)]);
        host.dispatcher.load_failed(host.now, guest);
        assert_eq!(host.steps(), []);
        assert!(matches!(host.state(guest), State::Failed { attempts, .. } if attempts == attempt + 1));
        let full = S * (1 << attempt);
        let waited = host.pass_to_next();
        assert!(waited <= full && waited >= full.mul_f64(0.8), "attempt {attempt}: {waited:?} of {full:?}");
    }
    host.dispatcher.reload(host.now, guest);
    assert_eq!(host.steps(), [Step::Load(guest)]);
    host.dispatcher.reload(host.now, guest);
    host.dispatcher.loaded(host.now, guest);
    assert_eq!(host.steps(), [Step::Load(guest)], "a reload that was asked for during a load is not lost");
    host.dispatcher.loaded(host.now, guest);
    assert_eq!(host.run().key, key("a"));
}

#[test]
fn a_suspended_guest_keeps_its_keys_and_sleeps_at_once() {
    let (mut host, guest) = Host::with_guest(sleepless());
    host.complete(guest, "timer", Completion::RequeueAfter(S));
    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    host.mark(guest, "b", Cause::Change);
    host.dispatcher.update(host.now, guest, Settings { suspended: true, ..sleepless() });
    assert_eq!(host.steps(), [], "what runs may end");
    host.finish(&job, Completion::Done);
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Suspended)]);
    assert_eq!(host.dispatcher.next_time(), None, "not even a timer wakes it");
    host.dispatcher.reload(host.now, guest);
    assert_eq!(host.steps(), []);
    host.pass(2 * S);
    host.dispatcher.update(host.now, guest, sleepless());
    assert_eq!(host.steps(), [Step::Load(guest)]);
    host.dispatcher.loaded(host.now, guest);
    for name in ["b", "timer"] {
        let job = host.run();
        assert_eq!(job.key, key(name));
        host.finish(&job, Completion::Done);
    }
}

#[test]
fn a_removed_guest_lets_its_runs_end_and_takes_its_keys_along() {
    let (mut host, guest) = Host::with_guest(Settings { concurrency: 1, ..sleepless() });
    host.complete(guest, "timer", Completion::RequeueAfter(S));
    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    host.mark(guest, "b", Cause::Change);
    host.dispatcher.remove(host.now, guest);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.guests().count(), 0);
    host.finish(&job, Completion::Retry);
    assert_eq!(host.steps(), [Step::Removed(guest)]);
    assert_eq!(host.dispatcher.running(), 0);

    let next = host.add(sleepless());
    assert_ne!(next, guest);
    host.mark(guest, "a", Cause::Change);
    host.finish(&job, Completion::Done);
    assert_eq!(host.steps(), [], "the old id names nothing");
    assert_eq!(host.dispatcher.next_time(), None);
}

#[test]
fn keys_of_a_controller_that_is_gone_are_dropped_with_their_timers_and_runs() {
    let (mut host, guest) = Host::with_guest(Settings { concurrency: 2, ..sleepless() });
    host.complete(guest, "timer", Completion::RequeueAfter(S));
    host.complete(guest, "failed", Completion::Retry);
    host.mark(guest, "running", Cause::Change);
    let running = host.run();
    host.mark(guest, "running", Cause::Change);
    host.mark(guest, "kept", Cause::Change);
    let kept = host.run();
    host.mark(guest, "queued", Cause::Change);
    host.dispatcher.retain(host.now, guest, |key| &*key.object.name == "kept");
    host.finish(&running, Completion::Retry);
    host.finish(&kept, Completion::RequeueAfter(2 * S));
    assert_eq!(host.steps(), []);
    assert_eq!(host.pass_to_next(), 2 * S);
    assert_eq!(host.run().key, key("kept"));
    let snapshot = host.dispatcher.snapshot(host.now, guest).unwrap();
    assert_eq!((snapshot.delayed, snapshot.depth.len()), (0, 0));
}

#[test]
fn a_drained_dispatcher_starts_nothing_and_knows_when_all_runs_have_ended() {
    let (mut host, guest) = Host::with_guest(Settings::default());
    host.mark(guest, "a", Cause::Change);
    let job = host.run();
    host.dispatcher.drain(host.now);
    host.mark(guest, "b", Cause::Change);
    host.pass(10 * S);
    assert_eq!(host.steps(), []);
    assert_eq!(host.dispatcher.next_time(), None);
    assert!(!host.dispatcher.is_drained());
    host.finish(&job, Completion::Done);
    assert!(host.dispatcher.is_drained());
    assert_eq!(host.steps(), []);
}

#[test]
fn a_resync_spreads_all_keys_at_low_priority() {
    let settings = Settings { resync: Some(100 * S), concurrency: 50, ..sleepless() };
    let (mut host, guest) = Host::with_guest(settings);
    host.complete(guest, "sooner", Completion::RequeueAfter(100 * S));
    assert_eq!(host.pass_to_next(), 100 * S);
    let steps = host.steps();
    let [Step::Resync(_), Step::Run(job)] = &steps[..] else { panic!("{steps:?}") };
    host.finish(job, Completion::RequeueAfter(MS));
    let start = host.now;
    let names: Vec<_> = (0..40).map(|number| number.to_string()).chain(["sooner".to_owned()]).collect();
    host.dispatcher.resync(host.now, guest, names.iter().map(|name| key(name)));
    let mut times = std::collections::BTreeSet::new();
    while host.dispatcher.snapshot(host.now, guest).unwrap().delayed > 0 {
        host.pass_to_next();
        for step in host.steps() {
            let Step::Run(job) = step else { panic!("{step:?}") };
            if job.key == key("sooner") {
                assert_eq!((job.cause, job.priority), (Cause::Timer, Priority::NORMAL));
                assert_eq!(host.now.since(start), MS, "the earlier of two delays stays");
            } else {
                assert_eq!((job.cause, job.priority), (Cause::Resync, Priority::LOW));
                times.insert(host.now);
            }
            host.finish(&job, Completion::Done);
        }
    }
    assert!(times.len() > 35, "{times:?}");
    assert!(host.now.since(start) <= 10 * S);
    host.pass_to_next();
    assert_eq!((host.now.since(start), host.steps()), (100 * S, vec![Step::Resync(guest)]));
}

#[test]
fn runs_are_bounded_per_guest_and_per_host() {
    let mut host = Host::new(Options { max_runs: 3, ..Options::default() });
    let one = host.add(Settings { concurrency: 2, ..sleepless() });
    let other = host.add(Settings { concurrency: 5, ..sleepless() });
    for name in ["a", "b", "c", "d"] {
        host.mark(one, name, Cause::Change);
    }
    assert_eq!(host.steps().len(), 2);
    for name in ["a", "b", "c", "d"] {
        host.mark(other, name, Cause::Change);
    }
    assert_eq!(host.steps().len(), 1);
    host.pass(S);
    let snapshot = host.dispatcher.snapshot(host.now, one).unwrap();
    assert_eq!((snapshot.running, snapshot.depth[&Priority::NORMAL]), (2, 2));
    assert_eq!((snapshot.longest_running, snapshot.unfinished, snapshot.adds), (S, 2 * S, 4));
}
