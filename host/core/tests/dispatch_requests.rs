//! How the dispatcher treats HTTP requests that guests serve, one example per rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Host, MS, S};
use wasm_operator_core::dispatch::{
    Completion, GuestId, Key, Mark, Options, Path, Refusal, RequestId, Serve, Settings, SleepPolicy, SleepReason,
    State, Step, WakeReason,
};
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::Cause;

impl Host {
    fn request(&mut self, guest: GuestId) -> Result<RequestId, Refusal> {
        self.dispatcher.request(self.now, guest)
    }

    /// The one command there is, which must have a guest serve.
    fn serve(&mut self) -> Serve {
        let steps = self.steps();
        let [Step::Serve(serve)] = steps[..] else { panic!("{steps:?}") };
        serve
    }

    fn mark(&mut self, guest: GuestId) {
        let object = ObjectRef { namespace: None, name: "a".into() };
        let key = Key { controller: "c".into(), object };
        self.dispatcher.mark(self.now, guest, Mark::new(key, Cause::Change));
    }

    fn served(&mut self, serve: Serve) {
        self.dispatcher.served(self.now, serve.guest, serve.request, false, MS);
    }

    fn broke(&mut self, serve: Serve) {
        self.dispatcher.served(self.now, serve.guest, serve.request, true, MS);
    }
}

fn settings() -> Settings {
    Settings { sleep: SleepPolicy::Fixed(S), requests: 2, waiting_requests: 3, ..Settings::default() }
}

#[test]
fn a_request_wakes_a_sleeping_guest_which_sleeps_again_afterwards() {
    let (mut host, guest) = Host::with_guest(settings());
    let request = host.request(guest).unwrap();
    host.now = host.now + 5 * MS;
    let serve = host.serve();
    assert_eq!((serve.guest, serve.request, serve.path), (guest, request, Path::Cold));
    assert_eq!(serve.wake, Some(WakeReason::Request));
    assert_eq!(host.now.since(serve.queued), 5 * MS);
    assert_eq!(host.state(guest), State::Awake);

    host.now = host.now + 10 * S;
    assert_eq!(host.steps(), [], "a guest that serves does not sleep");
    host.served(serve);
    host.request(guest).unwrap();
    let warm = host.serve();
    assert_eq!((warm.path, warm.wake), (Path::Warm, None));
    host.served(warm);
    host.now = host.now + S;
    assert_eq!(host.steps(), [Step::Sleep(guest, SleepReason::Idle)]);
}

#[test]
fn requests_have_places_of_their_own_beside_reconciles() {
    let (mut host, guest) = Host::with_guest(settings());
    host.mark(guest);
    let job = host.run();
    host.request(guest).unwrap();
    let first = host.serve();
    assert_eq!(first.wake, None, "the reconcile has woken it");
    host.request(guest).unwrap();
    host.serve();
    host.request(guest).unwrap();
    assert_eq!(host.steps(), [], "two at once");
    // What a request waits for may be what a reconcile does.
    host.dispatcher.finished(host.now, guest, &job.key, Completion::Done, MS);
    host.mark(guest);
    host.run();
    host.served(first);
    host.serve();
}

#[test]
fn a_queue_that_is_full_refuses_and_the_first_to_come_is_the_first_to_be_served() {
    let (mut host, guest) = Host::with_guest(Settings { requests: 1, ..settings() });
    host.request(guest).unwrap();
    let serving = host.serve();
    let waiting: Vec<_> = (0..3).map(|_| host.request(guest).unwrap()).collect();
    assert_eq!(host.request(guest), Err(Refusal::QueueFull));
    host.dispatcher.withdraw(host.now, guest, waiting[0]);
    host.request(guest).unwrap();
    host.served(serving);
    assert_eq!(host.serve().request, waiting[1]);
}

#[test]
fn a_flood_for_one_guest_leaves_the_places_of_the_others() {
    let mut host = Host::new(Options { max_requests: 4, ..Options::default() });
    let flooded = host.add(Settings { requests: 4, waiting_requests: 100, ..settings() });
    let other = host.add(settings());
    for _ in 0..100 {
        host.request(flooded).unwrap();
    }
    let served = host.steps();
    assert_eq!(served.len(), 4);
    host.request(other).unwrap();
    host.mark(other);
    let job = host.run();
    host.dispatcher.finished(host.now, other, &job.key, Completion::Done, MS);
    let Step::Serve(first) = served[0] else { panic!("{served:?}") };
    host.served(first);
    assert_eq!(host.serve().guest, other, "its turn, under fair share");
}

#[test]
fn what_waits_for_a_guest_that_breaks_is_refused_until_it_may_run_again() {
    let (mut host, guest) = Host::with_guest(Settings { requests: 1, ..settings() });
    host.request(guest).unwrap();
    let serve = host.serve();
    let waiting = host.request(guest).unwrap();
    host.broke(serve);
    let State::Failed { until, .. } = host.state(guest) else { panic!("{:?}", host.state(guest)) };
    let refusal = Refusal::Failed { until };
    let steps = host.steps();
    assert_eq!(steps, [Step::Refuse(guest, waiting, refusal), Step::Sleep(guest, SleepReason::Failed)]);
    assert_eq!(host.request(guest), Err(refusal));
    host.now = until;
    host.request(guest).unwrap();
    host.serve();
}

#[test]
fn suspended_removed_and_unknown_guests_refuse() {
    let (mut host, guest) = Host::with_guest(Settings { requests: 1, ..settings() });
    host.request(guest).unwrap();
    let serving = host.serve();
    let waiting = host.request(guest).unwrap();
    let suspended = Settings { suspended: true, requests: 1, ..settings() };
    host.dispatcher.update(host.now, guest, suspended);
    assert_eq!(host.steps(), [Step::Refuse(guest, waiting, Refusal::Suspended)]);
    assert_eq!(host.request(guest), Err(Refusal::Suspended));
    host.dispatcher.update(host.now, guest, Settings { requests: 1, ..settings() });
    let waiting = host.request(guest).unwrap();
    host.dispatcher.remove(host.now, guest);
    assert_eq!(host.steps(), [Step::Refuse(guest, waiting, Refusal::Unknown)]);
    assert_eq!(host.request(guest), Err(Refusal::Unknown));
    host.served(serving);
    assert_eq!(host.steps(), [Step::Removed(guest)], "after its last request");
    assert_eq!(host.request(guest), Err(Refusal::Unknown));
}

#[test]
fn a_request_waits_for_a_component_that_is_loaded_anew() {
    let (mut host, guest) = Host::with_guest(settings());
    host.dispatcher.reload(host.now, guest);
    host.request(guest).unwrap();
    assert_eq!(host.steps(), [Step::Load(guest)]);
    host.request(guest).unwrap();
    assert_eq!(host.steps(), []);
    host.dispatcher.loaded(host.now, guest);
    assert_eq!(host.steps().len(), 2);

    host.dispatcher.reload(host.now, guest);
    assert_eq!(host.steps(), [], "not while it serves");
}

#[test]
fn a_component_that_cannot_be_loaded_refuses_what_waits() {
    let (mut host, guest) = Host::with_guest(settings());
    host.dispatcher.reload(host.now, guest);
    let waiting = host.request(guest).unwrap();
    assert_eq!(host.steps(), [Step::Load(guest)]);
    host.dispatcher.load_failed(host.now, guest);
    let steps = host.steps();
    assert!(matches!(steps[..], [Step::Refuse(_, request, Refusal::Failed { .. })] if request == waiting), "{steps:?}");
}

#[test]
fn a_drained_dispatcher_refuses_what_waits_and_awaits_what_is_under_way() {
    let (mut host, guest) = Host::with_guest(Settings { requests: 1, ..settings() });
    host.request(guest).unwrap();
    let serving = host.serve();
    let waiting = host.request(guest).unwrap();
    host.dispatcher.drain(host.now);
    assert!(!host.dispatcher.is_drained());
    assert_eq!(host.steps(), [Step::Refuse(guest, waiting, Refusal::Draining)]);
    assert_eq!(host.request(guest), Err(Refusal::Draining));
    assert!(!host.dispatcher.is_drained());
    host.served(serving);
    assert!(host.dispatcher.is_drained());
}

#[test]
fn what_requests_cost_is_charged_to_the_guests_reconciles() {
    let mut host = Host::new(Options { max_runs: 1, ..Options::default() });
    let [serving, other] = [(); 2].map(|()| host.add(settings()));
    host.request(serving).unwrap();
    let serve = host.serve();
    host.dispatcher.served(host.now, serve.guest, serve.request, false, S);
    host.mark(serving);
    host.mark(other);
    assert_eq!(host.run().guest, other);
}

#[test]
fn a_request_that_need_not_wait_needs_no_queue() {
    let (mut host, guest) = Host::with_guest(Settings { requests: 2, waiting_requests: 0, ..settings() });
    let first = host.request(guest).unwrap();
    host.request(guest).unwrap();
    assert_eq!(host.request(guest), Err(Refusal::QueueFull));
    assert_eq!(host.steps().len(), 2);
    assert_eq!(host.request(guest), Err(Refusal::QueueFull));
    host.dispatcher.served(host.now, guest, first, false, MS);
    host.request(guest).unwrap();
    host.serve();
}
