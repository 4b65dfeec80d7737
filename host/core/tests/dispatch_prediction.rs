//! Predicted guests: who is kept, who is made ready ahead, and who leaves when memory is short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::time::Duration;

use common::{Host, MS, S};
use wasm_operator_core::dispatch::{
    Completion, GuestId, Key, Mark, Options, Settings, SleepPolicy, SleepReason, State, Step, Tally,
};
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::Cause;

/// Seconds between two events, without a pattern.
const GAPS: [u64; 12] = [37, 211, 53, 170, 71, 329, 140, 90, 461, 200, 116, 281];

/// A guest whose wake takes so long and that holds so much.
struct Guest {
    wake: Duration,
    bytes: u64,
}

/// Worth three seconds of memory.
const DEAR: Guest = Guest { wake: Duration::from_millis(300), bytes: 2 << 30 };

impl Host {
    fn predicted(&mut self, guest: &Guest) -> GuestId {
        let id = self.add(Settings { sleep: SleepPolicy::default(), ..Settings::default() });
        self.dispatcher.woke(id, guest.wake);
        self.dispatcher.set_instance_bytes(id, guest.bytes);
        id
    }

    /// Does what is due now. Making a guest ready works at once.
    fn carry_out(&mut self) -> Vec<Step> {
        let steps = self.steps();
        for step in &steps {
            if let Step::Prepare(guest) = step {
                self.dispatcher.prepared(self.now, *guest, true);
            }
        }
        steps
    }

    /// To that time, with all that is due until then.
    fn until(&mut self, time: Duration) -> Vec<Step> {
        let end = self.now + time;
        let mut steps = self.carry_out();
        while let Some(next) = self.dispatcher.next_time().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            steps.extend(self.carry_out());
        }
        self.now = end;
        steps
    }

    /// An event for the guest, which it deals with at once.
    fn event(&mut self, guest: GuestId, completion: Completion) {
        let object = ObjectRef { namespace: Some("ns".into()), name: "name".into() };
        let key = Key { controller: "c".into(), object };
        self.dispatcher.mark(self.now, guest, Mark::new(key, Cause::Change));
        let job = self.run();
        assert_eq!(job.guest, guest);
        self.dispatcher.finished(self.now, guest, &job.key, completion, MS);
    }

    fn tally(&self, guest: GuestId) -> Tally {
        self.dispatcher.snapshot(self.now, guest).unwrap().predicted
    }
}

/// One guest that writes at odd times, and another one that has an event half a second later.
struct Pair {
    host: Host,
    leader: GuestId,
    follower: GuestId,
}

impl Pair {
    /// The leader writes. Returns what is done for that.
    fn write(&mut self) -> Vec<Step> {
        self.host.event(self.leader, Completion::Done);
        self.host.dispatcher.wrote(self.host.now, self.leader);
        self.host.until(500 * MS)
    }

    fn learnt() -> Self {
        let mut host = Host::new(Options::default());
        let (leader, follower) = (host.predicted(&DEAR), host.predicted(&DEAR));
        let mut pair = Self { host, leader, follower };
        for gap in GAPS {
            pair.write();
            pair.host.event(pair.follower, Completion::Done);
            pair.host.until(Duration::from_secs(gap));
        }
        pair.host.until(3600 * S);
        assert_eq!(pair.host.state(pair.follower), State::Dormant);
        pair
    }
}

#[test]
fn a_guest_that_follows_anothers_writes_is_made_ready_when_that_one_writes() {
    let Pair { host, leader, follower } = &mut Pair::learnt();
    let before = host.tally(*follower);
    host.event(*leader, Completion::Done);
    assert!(!host.steps().contains(&Step::Prepare(*follower)));
    host.dispatcher.wrote(host.now, *leader);
    assert_eq!(host.carry_out(), [Step::Prepare(*follower)]);
    host.until(500 * MS);
    host.event(*follower, Completion::Done);
    let after = host.tally(*follower);
    assert_eq!((after.hits, after.misses), (before.hits + 1, before.misses));
    assert_eq!(after.delay_saved - before.delay_saved, DEAR.wake);
}

#[test]
fn a_follower_that_nothing_comes_for_sleeps_again_and_counts_as_wasted() {
    let mut pair = Pair::learnt();
    let before = pair.host.tally(pair.follower).wasted;
    assert!(pair.write().contains(&Step::Prepare(pair.follower)));
    assert!(pair.host.until(5 * S).contains(&Step::Sleep(pair.follower, SleepReason::Idle)));
    assert_eq!(pair.host.tally(pair.follower).wasted, before + 1);
}

#[test]
fn a_follower_that_stops_to_follow_is_left_asleep() {
    let mut pair = Pair::learnt();
    let ready = |pair: &mut Pair| {
        let steps = pair.write();
        pair.host.until(Duration::from_secs(97));
        steps.contains(&Step::Prepare(pair.follower))
    };
    assert!(ready(&mut pair));
    let occasions = (0..40).take_while(|_| ready(&mut pair)).count();
    assert!(occasions < 20, "{occasions}");
}

#[test]
fn a_guest_is_made_ready_before_its_timer_and_not_kept_awake_for_it() {
    let mut host = Host::new(Options::default());
    let guest = host.predicted(&DEAR);
    host.event(guest, Completion::RequeueAfter(3600 * S));
    assert!(host.until(60 * S).contains(&Step::Sleep(guest, SleepReason::Idle)));
    assert_eq!(host.until(3500 * S), [], "an hour is long");
    assert_eq!(host.until(39 * S + 800 * MS), [Step::Prepare(guest)]);
    host.until(200 * MS);
    assert_eq!(host.state(guest), State::Awake);
}

#[test]
fn a_guest_that_wakes_quickly_is_not_made_ready_before_its_timer() {
    let mut host = Host::new(Options::default());
    let guest = host.predicted(&Guest { wake: Duration::from_micros(60), bytes: 64 << 10 });
    host.event(guest, Completion::RequeueAfter(3600 * S));
    let steps = host.until(3599 * S);
    assert!(!steps.contains(&Step::Prepare(guest)), "{steps:?}");
}

#[test]
fn forecasts_that_were_right_have_a_guest_made_ready_and_one_of_the_past_changes_nothing() {
    let mut host = Host::new(Options::default());
    let guest = host.predicted(&Guest { wake: Duration::from_millis(300), bytes: 64 << 20 });
    for gap in GAPS.map(Duration::from_secs) {
        host.event(guest, Completion::Done);
        host.dispatcher.advise(host.now, guest, host.now + gap);
        host.until(gap);
    }
    host.event(guest, Completion::Done);
    let since = host.now;
    host.until(120 * S);
    assert_eq!(host.state(guest), State::Dormant);
    host.dispatcher.advise(host.now, guest, since);
    assert_eq!(host.until(30 * S), []);
    host.dispatcher.advise(host.now, guest, since + 400 * S);
    assert_eq!(host.until(150 * S), []);
    assert_eq!(host.until(99 * S), [Step::Prepare(guest)]);
}

#[test]
fn when_memory_is_short_the_bytes_that_are_worth_the_least_leave_first_and_no_more_than_need_be() {
    let mut host = Host::new(Options::default());
    let mib = |mib: u64, wake: u64| Guest { wake: Duration::from_millis(wake), bytes: mib << 20 };
    let sizes = [mib(64, 2_000), mib(64, 20), mib(64, 200)];
    let [dear, cheap, middling] = sizes.map(|guest| {
        let id = host.predicted(&guest);
        host.event(id, Completion::Done);
        assert_eq!(host.state(id), State::Awake);
        id
    });
    host.dispatcher.press(1, 1.0);
    assert_eq!(host.steps(), [Step::Sleep(cheap, SleepReason::Pressure)]);
    host.dispatcher.press(100 << 20, 1.0);
    let both = [middling, dear].map(|guest| Step::Sleep(guest, SleepReason::Pressure));
    assert_eq!(host.steps(), both);
}

#[test]
fn a_guest_that_never_sleeps_stays_also_when_memory_is_short() {
    let (mut host, guest) = Host::with_guest(Settings { sleep: SleepPolicy::Never, ..Settings::default() });
    host.event(guest, Completion::Done);
    host.dispatcher.press(u64::MAX, 1e9);
    assert_eq!(host.steps(), []);
}
