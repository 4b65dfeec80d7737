//! Random histories of the dispatcher against a model that is simple enough to be obviously right: no key is lost, none
//! runs twice at once, nothing runs that is held back, no delay ends early or late, every request is served or refused
//! once, and in the end all is quiet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wasm_operator_core::backoff::Backoff;
use wasm_operator_core::dispatch::{
    Completion, Dispatcher, GuestId, Job, Key, Mark, Options, Refusal, RequestId, Serve, Settings, SleepPolicy, State,
    Step, Time,
};
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::{Cause, MAX_TOMBSTONES, Tombstone};

const GUESTS: usize = 4;
const KEYS: usize = 4;
const MAX_RUNS: usize = 3;
const MAX_REQUESTS: usize = 3;
const MAX_WAITING: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Mark { guest: usize, key: usize, cause: Cause, deleted: bool },
    Finish { nth: usize, completion: Completion },
    Pass(u64),
    PassToNext,
    Suspend { guest: usize, suspended: bool },
    Reload { guest: usize },
    Load { guest: usize, works: bool },
    Replace { guest: usize },
    Echo { guest: usize, pending: bool },
    Request { guest: usize },
    Served { nth: usize, broken: bool },
    Withdraw { guest: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let cause = prop_oneof![Just(Cause::Change), Just(Cause::Initial), Just(Cause::Resync)];
    let completion = prop_oneof![
        4 => Just(Completion::Done),
        2 => (0_u64..3_000_000).prop_map(|micros| Completion::RequeueAfter(Duration::from_micros(micros))),
        2 => Just(Completion::Retry),
        1 => (0_u64..3_000_000).prop_map(|micros| Completion::RetryAfter(Duration::from_micros(micros))),
        1 => Just(Completion::Terminal),
        1 => Just(Completion::Broken),
    ];
    prop_oneof![
        8 => (0..GUESTS, 0..KEYS, cause, any::<bool>())
            .prop_map(|(guest, key, cause, deleted)| Op::Mark { guest, key, cause, deleted }),
        8 => (0..GUESTS * KEYS, completion).prop_map(|(nth, completion)| Op::Finish { nth, completion }),
        3 => (0_u64..2_000_000).prop_map(Op::Pass),
        3 => Just(Op::PassToNext),
        1 => (0..GUESTS, any::<bool>()).prop_map(|(guest, suspended)| Op::Suspend { guest, suspended }),
        1 => (0..GUESTS).prop_map(|guest| Op::Reload { guest }),
        4 => (0..GUESTS, prop::bool::weighted(0.8)).prop_map(|(guest, works)| Op::Load { guest, works }),
        1 => (0..GUESTS).prop_map(|guest| Op::Replace { guest }),
        1 => (0..GUESTS, any::<bool>()).prop_map(|(guest, pending)| Op::Echo { guest, pending }),
        5 => (0..GUESTS).prop_map(|guest| Op::Request { guest }),
        5 => (0..GUESTS, prop::bool::weighted(0.1)).prop_map(|(nth, broken)| Op::Served { nth, broken }),
        1 => (0..GUESTS).prop_map(|guest| Op::Withdraw { guest }),
    ]
}

/// A time of which jitter leaves only a range known: certainly not before the first, certainly at the second.
#[derive(Debug, Clone, Copy)]
struct Range(Time, Time);

fn jittered(now: Time, full: Duration) -> Range {
    Range(now + full.mul_f64(0.79), now + full)
}

#[derive(Debug, Default)]
struct ModelKey {
    pending: bool,
    running: bool,
    due: Option<Range>,
    failures: u32,
    backoffs: u32,
    deleted: Vec<u32>,
    /// Handed to the run under way.
    handed: Vec<u32>,
}

#[derive(Debug)]
struct ModelGuest {
    id: GuestId,
    settings: Settings,
    keys: Vec<ModelKey>,
    waiting: VecDeque<RequestId>,
    serving: Vec<RequestId>,
    loaded: bool,
    loading: bool,
    reload: bool,
    held: Option<Range>,
    /// The most faults that the guest's backoff may have counted: good runs may have made it forget them.
    faults: u32,
}

impl ModelGuest {
    fn new(real: &mut Dispatcher, now: Time, number: usize) -> Self {
        let second = Duration::from_secs(1);
        let sleep = [
            SleepPolicy::Immediately,
            SleepPolicy::Fixed(Duration::from_millis(300)),
            SleepPolicy::default(),
            SleepPolicy::Fixed(second),
            SleepPolicy::Never,
        ];
        let settings = Settings {
            concurrency: 1 + number % 2,
            requests: 1 + number / 2 % 2,
            waiting_requests: MAX_WAITING,
            sleep: sleep[number % sleep.len()],
            ..Settings::default()
        };
        let id = real.add(now, settings.clone());
        // A wake so dear and memory so dear that prediction drops the guest and makes it ready again.
        real.woke(id, Duration::from_millis(200));
        real.set_instance_bytes(id, 1 << 30);
        Self {
            id,
            settings,
            keys: (0..KEYS).map(|_| ModelKey::default()).collect(),
            waiting: VecDeque::new(),
            serving: Vec::new(),
            loaded: false,
            loading: false,
            reload: false,
            held: None,
            faults: 0,
        }
    }

    fn running(&self) -> usize {
        self.keys.iter().filter(|key| key.running).count()
    }

    fn busy(&self) -> bool {
        self.running() > 0 || !self.serving.is_empty()
    }

    fn must_serve(&self, now: Time) -> bool {
        self.may_run(now)
            && self.held.is_none_or(|held| held.1 <= now)
            && self.serving.len() < self.settings.requests
            && !self.waiting.is_empty()
    }

    fn may_run(&self, now: Time) -> bool {
        self.loaded && !self.reload && !self.settings.suspended && self.held.is_none_or(|held| held.0 <= now)
    }

    fn must_start(&self, now: Time) -> bool {
        self.may_run(now)
            && self.held.is_none_or(|held| held.1 <= now)
            && self.running() < self.settings.concurrency
            && self.keys.iter().any(|key| !key.running && (key.pending || key.due.is_some_and(|due| due.1 <= now)))
    }

    fn assert_refusal(&self, now: Time, refusal: Refusal) {
        match refusal {
            Refusal::Suspended => assert!(self.settings.suspended),
            Refusal::Failed { until } => assert!(until > now && self.held.is_some_and(|held| held.1 > now), "{self:?}"),
            other => panic!("{other:?}: {self:?}"),
        }
    }

    fn broke(&mut self, now: Time) {
        let least = match self.held {
            // Faults of several instances at once are one fault.
            Some(held) if now < held.0 => return,
            // Unknown whether this is one of those.
            Some(held) if now < held.1 => Duration::ZERO,
            _ => Backoff::GUEST.base.mul_f64(0.79),
        };
        let most = Backoff::GUEST.base.saturating_mul(1 << self.faults.min(9)).min(Backoff::GUEST.max);
        self.held = Some(Range(now + least, now + most));
        self.faults += 1;
    }

    fn forgive(&mut self) {
        self.held = None;
        self.faults = 0;
    }

    fn reload_if_asked(&mut self) {
        if self.reload && self.loaded && !self.settings.suspended && !self.busy() {
            self.loaded = false;
            self.reload = false;
        }
    }
}

struct World {
    now: Time,
    real: Dispatcher,
    guests: Vec<ModelGuest>,
    /// Runs under way of guests that were removed.
    orphans: Vec<(GuestId, Key)>,
    /// Requests under way, and requests that wait, of guests that were removed.
    orphan_requests: Vec<(GuestId, RequestId)>,
    orphan_waiting: Vec<RequestId>,
    /// Removed guests, and whether the dispatcher has let go of them.
    removed: BTreeMap<GuestId, bool>,
    tombstones: u32,
}

fn key(index: usize) -> Key {
    Key { controller: "c".into(), object: ObjectRef { namespace: None, name: index.to_string().into() } }
}

fn index(key: &Key) -> usize {
    key.object.name.parse().unwrap()
}

fn tombstone(number: u32) -> Tombstone {
    Tombstone { uid: number.to_string().into(), metadata: Arc::from(&b"{}"[..]) }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut real =
            Dispatcher::new(Options { max_runs: MAX_RUNS, max_requests: MAX_REQUESTS, component_bytes: Some(0), seed });
        let now = Time::from_micros(1_000_000);
        let guests = (0..GUESTS).map(|guest| ModelGuest::new(&mut real, now, guest)).collect();
        Self {
            now,
            real,
            guests,
            orphans: Vec::new(),
            orphan_requests: Vec::new(),
            orphan_waiting: Vec::new(),
            removed: BTreeMap::new(),
            tombstones: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Mark { guest, key: number, cause, deleted } => {
                let guest = &mut self.guests[guest];
                let mut mark = Mark::new(key(number), cause);
                let entry = &mut guest.keys[number];
                if deleted {
                    self.tombstones += 1;
                    mark.deleted = Some(tombstone(self.tombstones));
                    entry.deleted.push(self.tombstones);
                }
                entry.pending = true;
                self.real.mark(now, guest.id, mark);
            }
            Op::Finish { nth, completion } => self.finish(nth, completion),
            Op::Pass(micros) => self.now = now + Duration::from_micros(micros),
            Op::PassToNext => {
                if let Some(next) = self.real.next_time() {
                    // Nothing may happen a microsecond before.
                    self.now = now.max(Time::from_micros(next.as_micros() - 1));
                    assert_eq!(self.real.step(self.now), None, "a command before its time");
                    self.now = next;
                }
            }
            Op::Suspend { guest, suspended } => {
                let guest = &mut self.guests[guest];
                if guest.settings.suspended && !suspended {
                    guest.forgive();
                }
                guest.settings.suspended = suspended;
                self.real.update(now, guest.id, guest.settings.clone());
                guest.reload_if_asked();
            }
            Op::Reload { guest } => {
                let guest = &mut self.guests[guest];
                guest.forgive();
                guest.reload = guest.loaded || guest.loading;
                self.real.reload(now, guest.id);
                guest.reload_if_asked();
            }
            Op::Load { guest, works } => {
                let guest = &mut self.guests[guest];
                if works {
                    self.real.loaded(now, guest.id);
                } else {
                    self.real.load_failed(now, guest.id);
                }
                if std::mem::take(&mut guest.loading) {
                    guest.loaded = works;
                    if !works && !std::mem::take(&mut guest.reload) {
                        guest.broke(now);
                    }
                    guest.reload_if_asked();
                }
            }
            Op::Replace { guest: number } => {
                let guest = &self.guests[number];
                let id = guest.id;
                let running = (0..KEYS).filter(|number| guest.keys[*number].running);
                self.orphans.extend(running.map(|number| (id, key(number))));
                self.orphan_requests.extend(guest.serving.iter().map(|request| (id, *request)));
                self.orphan_waiting.extend(&guest.waiting);
                self.removed.insert(id, false);
                self.real.remove(now, id);
                self.real.mark(now, id, Mark::new(key(0), Cause::Change));
                self.guests[number] = ModelGuest::new(&mut self.real, now, number);
                assert!(self.real.snapshot(now, id).is_none());
            }
            Op::Echo { guest, pending } => self.real.echo_pending(now, self.guests[guest].id, pending),
            Op::Request { guest } => {
                let guest = &mut self.guests[guest];
                match self.real.request(now, guest.id) {
                    Ok(request) => guest.waiting.push_back(request),
                    Err(Refusal::QueueFull) => {
                        assert_eq!(guest.waiting.len() + guest.serving.len(), guest.settings.requests + MAX_WAITING);
                    }
                    Err(refusal) => guest.assert_refusal(now, refusal),
                }
            }
            Op::Served { nth, broken } => self.served(nth, broken),
            Op::Withdraw { guest } => {
                let guest = &mut self.guests[guest];
                if let Some(request) = guest.waiting.pop_back() {
                    self.real.withdraw(now, guest.id, request);
                }
            }
        }
        self.settle();
    }

    fn finish(&mut self, nth: usize, completion: Completion) {
        let now = self.now;
        let mut running: Vec<(GuestId, Key)> = self.orphans.clone();
        for guest in &self.guests {
            let keys = (0..KEYS).filter(|number| guest.keys[*number].running);
            running.extend(keys.map(|number| (guest.id, key(number))));
        }
        if running.is_empty() {
            // A completion that fits nothing changes nothing.
            self.real.finished(now, self.guests[0].id, &key(0), completion, Duration::ZERO);
            return;
        }
        let (id, done) = running.swap_remove(nth % running.len());
        self.orphans.retain(|orphan| *orphan != (id, done.clone()));
        self.real.finished(now, id, &done, completion, Duration::from_millis(1));
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        let entry = &mut guest.keys[index(&done)];
        entry.running = false;
        let handed = std::mem::take(&mut entry.handed);
        match completion {
            Completion::Done | Completion::Terminal => (entry.failures, entry.backoffs) = (0, 0),
            Completion::RequeueAfter(delay) => {
                (entry.failures, entry.backoffs) = (0, 0);
                entry.due = Some(Range(now + delay, now + delay));
            }
            Completion::Retry | Completion::RetryAfter(_) | Completion::Broken => {
                entry.due = Some(if let Completion::RetryAfter(delay) = completion {
                    Range(now + delay, now + delay)
                } else {
                    let full = Backoff::KEY.base.saturating_mul(1 << entry.backoffs.min(18)).min(Backoff::KEY.max);
                    entry.backoffs += 1;
                    jittered(now, full)
                });
                entry.failures += 1;
                let newer = std::mem::replace(&mut entry.deleted, handed);
                entry.deleted.extend(newer);
            }
        }
        if completion == Completion::Broken {
            guest.broke(now);
        }
        guest.reload_if_asked();
    }

    fn served(&mut self, nth: usize, broken: bool) {
        let now = self.now;
        let mut serving = self.orphan_requests.clone();
        for guest in &self.guests {
            serving.extend(guest.serving.iter().map(|request| (guest.id, *request)));
        }
        if serving.is_empty() {
            return;
        }
        let (id, request) = serving.swap_remove(nth % serving.len());
        self.orphan_requests.retain(|orphan| *orphan != (id, request));
        self.real.served(now, id, request, broken, Duration::from_millis(1));
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        guest.serving.retain(|serving| *serving != request);
        if broken {
            guest.broke(now);
        }
        guest.reload_if_asked();
    }

    /// Takes all commands and compares them with the model.
    fn settle(&mut self) {
        let now = self.now;
        for steps in 0.. {
            let Some(step) = self.real.step(now) else { break };
            assert!(steps < 1_000, "the dispatcher does not come to rest: {step:?}");
            match step {
                Step::Run(job) => self.started(job),
                Step::Serve(Serve { guest, request, .. }) => {
                    let guest = self.guests.iter_mut().find(|known| known.id == guest).expect("a removed guest serves");
                    assert!(guest.may_run(now), "a guest serves that is held back: {guest:?}");
                    assert!(guest.serving.len() < guest.settings.requests);
                    assert_eq!(guest.waiting.pop_front(), Some(request), "first come, first served");
                    guest.serving.push(request);
                }
                Step::Refuse(id, request, refusal) => match self.guests.iter_mut().find(|guest| guest.id == id) {
                    Some(guest) => {
                        guest.waiting.retain(|waiting| *waiting != request);
                        guest.assert_refusal(now, refusal);
                    }
                    None => {
                        assert_eq!(refusal, Refusal::Unknown);
                        self.orphan_waiting.retain(|waiting| *waiting != request);
                    }
                },
                Step::Load(id) => {
                    let guest = self.guests.iter_mut().find(|guest| guest.id == id).unwrap();
                    assert!(!guest.loaded && !guest.loading && !guest.settings.suspended, "{guest:?}");
                    assert!(!guest.busy() && guest.held.is_none_or(|held| held.0 <= now), "{guest:?}");
                    guest.loading = true;
                }
                Step::Sleep(id, _) => {
                    let guest = self.guests.iter().find(|guest| guest.id == id).unwrap();
                    assert!(!guest.busy(), "{guest:?}");
                    // Over the budget of 0: unloading follows.
                    self.real.set_bytes(id, 100);
                }
                Step::Prepare(id) => {
                    let guest = self.guests.iter().find(|guest| guest.id == id).unwrap();
                    assert!(!guest.busy() && guest.may_run(now), "{guest:?}");
                    self.real.prepared(now, id, true);
                }
                Step::Unload(id) => {
                    let guest = self.guests.iter().find(|guest| guest.id == id).unwrap();
                    assert!(!guest.busy(), "{guest:?}");
                }
                Step::Start(..) => panic!("there are no programs here"),
                Step::Resync(_) => panic!("no resync was asked for"),
                Step::Removed(id) => {
                    assert!(!self.is_orphaned(id), "removed while it runs");
                    assert_eq!(self.removed.insert(id, true), Some(false), "removed twice, or unasked");
                }
            }
        }
        assert!(self.real.next_time().is_none_or(|next| next > now), "at rest, yet something is due");
        let running = self.orphans.len() + self.guests.iter().map(ModelGuest::running).sum::<usize>();
        assert_eq!(self.real.running(), running);
        assert!(running <= MAX_RUNS);
        let serving = self.orphan_requests.len() + self.guests.iter().map(|guest| guest.serving.len()).sum::<usize>();
        assert_eq!(self.real.serving(), serving);
        assert!(serving <= MAX_REQUESTS && self.orphan_waiting.is_empty());
        for guest in &self.guests {
            assert!(serving == MAX_REQUESTS || !guest.must_serve(now), "a request that may start waits: {guest:?}");
            assert!(running == MAX_RUNS || !guest.must_start(now), "a key that may run waits: {guest:?}");
            let snapshot = self.real.snapshot(now, guest.id).unwrap();
            assert_eq!(snapshot.running, guest.running());
            let requests = (snapshot.requests_waiting, snapshot.requests_running);
            assert_eq!(requests, (guest.waiting.len(), guest.serving.len()));
            assert_eq!(snapshot.state == State::Suspended, guest.settings.suspended);
            if snapshot.state == State::Loading {
                assert!(!guest.loaded);
            }
        }
        for (id, removed) in &self.removed {
            assert_eq!(*removed, !self.is_orphaned(*id), "a removed guest is let go when its last run has ended");
        }
    }

    /// Whether something of the removed guest is under way.
    fn is_orphaned(&self, id: GuestId) -> bool {
        self.orphans.iter().any(|(orphan, _)| *orphan == id)
            || self.orphan_requests.iter().any(|(orphan, _)| *orphan == id)
    }

    fn started(&mut self, job: Job) {
        let now = self.now;
        let guest = self.guests.iter_mut().find(|guest| guest.id == job.guest).expect("a removed guest runs");
        assert!(guest.may_run(now), "a guest runs that is held back: {guest:?}");
        assert!(guest.running() < guest.settings.concurrency);
        let entry = &mut guest.keys[index(&job.key)];
        assert!(!entry.running, "a key runs twice at once");
        let due = entry.due.is_some_and(|due| due.0 <= now);
        assert!(entry.pending || due, "no reason to run, or too early: {entry:?} at {now:?}");
        assert_eq!(job.attempt, entry.failures);
        assert!(job.queued <= now);
        let excess = entry.deleted.len().saturating_sub(MAX_TOMBSTONES);
        let expected: Vec<_> = entry.deleted.drain(..).skip(excess).collect();
        let given: Vec<u32> = job.deleted.iter().map(|deleted| deleted.uid.parse().unwrap()).collect();
        assert_eq!(given, expected, "the newest tombstones, oldest first");
        entry.handed = expected;
        entry.pending = false;
        entry.due = None;
        entry.running = true;
    }

    /// Everything that holds work back ends and all work succeeds: what remains must be silence.
    fn wind_down(&mut self) {
        for guest in 0..GUESTS {
            self.apply(Op::Suspend { guest, suspended: false });
            self.apply(Op::Echo { guest, pending: false });
        }
        for _ in 0..10_000 {
            for guest in 0..GUESTS {
                self.apply(Op::Load { guest, works: true });
            }
            self.apply(Op::Finish { nth: 0, completion: Completion::Done });
            self.apply(Op::Served { nth: 0, broken: false });
            if self.real.running() == 0 && self.real.serving() == 0 {
                if self.real.next_time().is_none() && !self.guests.iter().any(|guest| guest.loading) {
                    break;
                }
                self.apply(Op::PassToNext);
            }
        }
        self.apply(Op::Pass(24 * 3_600 * 1_000_000));
        assert_eq!(self.real.next_time(), None, "a quiet guest is left alone");
        for guest in &self.guests {
            assert!(guest.keys.iter().all(|key| !key.pending && key.due.is_none()), "a key was lost: {guest:?}");
            assert!(guest.waiting.is_empty(), "a request was forgotten: {guest:?}");
            let snapshot = self.real.snapshot(self.now, guest.id).unwrap();
            assert!(snapshot.depth.is_empty());
            assert_eq!(snapshot.delayed, 0);
            let asleep = matches!(snapshot.state, State::Dormant | State::Cold);
            assert!(asleep || guest.settings.sleep == SleepPolicy::Never, "{snapshot:?}");
        }
        assert!(self.removed.values().all(|removed| *removed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_model(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(seed);
        world.settle();
        for op in ops {
            world.apply(op);
        }
        world.wind_down();
    }
}
