//! Programs: guests with a loop of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use wasm_operator_core::dispatch::{
    Dispatcher, GuestId, Options, PAUSE, ProgramRun, SLEEP_RETRY, Settings, SleepPolicy, SleepReason, State, Step,
    Time, WakeReason,
};

const IDLE: Duration = Duration::from_millis(100);

struct Fixture {
    dispatcher: Dispatcher,
    now: Time,
    guest: GuestId,
}

impl Fixture {
    /// A program that is about to be started.
    fn loaded(sleeps: bool) -> Self {
        let mut dispatcher = Dispatcher::new(Options::default());
        let settings = Settings { sleep: SleepPolicy::Fixed(IDLE), ..Settings::default() };
        let guest = dispatcher.add(Time::ZERO, settings);
        let mut fixture = Self { dispatcher, now: Time::ZERO, guest };
        assert_eq!(fixture.step(), Some(Step::Load(guest)));
        fixture.dispatcher.loaded_program(Time::ZERO, guest, sleeps);
        fixture
    }

    /// A program that runs.
    fn running(sleeps: bool) -> (Self, ProgramRun) {
        let mut fixture = Self::loaded(sleeps);
        let run = fixture.started();
        (fixture, run)
    }

    fn step(&mut self) -> Option<Step> {
        self.dispatcher.step(self.now)
    }

    fn started(&mut self) -> ProgramRun {
        match self.step() {
            Some(Step::Start(guest, run)) if guest == self.guest => run,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// To the next thing that is due.
    fn advance(&mut self) -> Duration {
        let next = self.dispatcher.next_time().expect("something is due");
        let passed = next.since(self.now);
        self.now = self.now.max(next);
        passed
    }

    fn state(&self) -> State {
        self.dispatcher.snapshot(self.now, self.guest).unwrap().state
    }

    fn works(&mut self, run: ProgramRun, cause: WakeReason) -> bool {
        self.dispatcher.program_works(self.now, self.guest, run, cause)
    }

    fn waits(&mut self, run: ProgramRun) {
        self.dispatcher.program_waits(self.now, self.guest, run, None);
    }

    /// Has its sleep predicted: a wake is dear, and so is its memory.
    fn predict(&mut self) {
        let settings = Settings { sleep: SleepPolicy::default(), ..Settings::default() };
        self.dispatcher.update(self.now, self.guest, settings);
        self.dispatcher.woke(self.guest, Duration::from_secs(1));
        self.dispatcher.set_instance_bytes(self.guest, 4 << 30);
    }

    fn suspend(&mut self, suspended: bool) {
        let settings = Settings { sleep: SleepPolicy::Fixed(IDLE), suspended, ..Settings::default() };
        self.dispatcher.update(self.now, self.guest, settings);
    }
}

#[test]
fn a_program_is_started_once_it_is_loaded_and_then_left_alone() {
    let (mut fixture, _) = Fixture::running(false);
    assert_eq!(fixture.step(), None);
    assert_eq!(fixture.state(), State::Awake);
    assert_eq!(fixture.dispatcher.next_time(), None);
}

#[test]
fn an_idle_program_is_hibernated_and_goes_on_when_something_comes() {
    let (mut fixture, run) = Fixture::running(true);
    assert_eq!(fixture.dispatcher.next_time(), None, "it works");
    fixture.waits(run);
    assert_eq!(fixture.advance(), IDLE);
    assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Idle)));
    assert_eq!(fixture.state(), State::Hibernated);
    assert_eq!(fixture.dispatcher.next_time(), None, "nothing but an event or its own timer ends that");
    fixture.pass(Duration::from_secs(3600));
    assert_eq!(fixture.step(), None);
    assert!(fixture.works(run, WakeReason::Event), "it was asleep");
    assert_eq!(fixture.state(), State::Awake);
    fixture.waits(run);
    assert!(!fixture.works(run, WakeReason::Timer), "it was awake");
}

#[test]
fn a_program_that_sleeps_at_once_is_not_hibernated_for_a_pause_of_its_loop() {
    let (mut fixture, run) = Fixture::running(true);
    let settings = Settings { sleep: SleepPolicy::Immediately, ..Settings::default() };
    fixture.dispatcher.update(fixture.now, fixture.guest, settings);
    fixture.waits(run);
    assert_eq!(fixture.step(), None);
    fixture.pass(PAUSE / 2);
    assert!(!fixture.works(run, WakeReason::Timer), "it was awake");
    fixture.waits(run);
    assert_eq!(fixture.advance(), PAUSE, "each pause begins anew");
    assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Idle)));
}

#[test]
fn a_program_is_not_hibernated_until_it_has_heard_of_its_own_write() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.dispatcher.echo_pending(fixture.now, fixture.guest, true);
    fixture.waits(run);
    fixture.pass(IDLE * 10);
    assert_eq!(fixture.step(), None);
    fixture.dispatcher.echo_pending(fixture.now, fixture.guest, false);
    assert_eq!(fixture.advance(), PAUSE, "what the cache has is still on its way to the program");
    assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Idle)));
}

#[test]
fn a_program_is_made_ready_just_before_its_own_timer() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.predict();
    let due = fixture.now + Duration::from_secs(3600);
    fixture.dispatcher.program_waits(fixture.now, fixture.guest, run, Some(due));
    fixture.advance();
    assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Idle)));
    fixture.advance();
    assert_eq!(fixture.step(), Some(Step::Prepare(fixture.guest)));
    let ahead = due.since(fixture.now);
    assert!(ahead > Duration::from_millis(500) && ahead < Duration::from_secs(30), "{ahead:?} before it is due");
    fixture.dispatcher.prepared(fixture.now, fixture.guest, true);
    fixture.now = due;
    assert!(!fixture.works(run, WakeReason::Timer), "it was ready");
}

#[test]
fn pauses_of_a_loop_are_no_gaps_to_learn_from() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.predict();
    let learnt = |fixture: &Fixture| {
        let seen = fixture.dispatcher.snapshot(fixture.now, fixture.guest).unwrap().predicted;
        seen.hits + seen.misses
    };
    for (pause, gaps) in [(PAUSE / 2, 0), (PAUSE, 1), (PAUSE * 100, 2)] {
        fixture.waits(run);
        fixture.pass(pause);
        fixture.works(run, WakeReason::Event);
        assert_eq!(learnt(&fixture), gaps, "{pause:?}");
    }
}

#[test]
fn a_program_that_may_not_be_hibernated_stays_awake_also_when_memory_is_short() {
    let (mut fixture, run) = Fixture::running(false);
    fixture.waits(run);
    assert_eq!(fixture.dispatcher.next_time(), None);
    fixture.dispatcher.press(1 << 30, 10.0);
    assert_eq!(fixture.step(), None);
}

#[test]
fn memory_that_is_short_hibernates_an_idle_program_early_and_never_a_busy_one() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.dispatcher.press(1, 10.0);
    assert_eq!(fixture.step(), None);
    fixture.waits(run);
    fixture.dispatcher.press(1, 10.0);
    assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Pressure)));
}

#[test]
fn a_program_that_could_not_be_hibernated_is_left_in_peace_for_a_while() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.waits(run);
    fixture.advance();
    assert!(matches!(fixture.step(), Some(Step::Sleep(..))));
    fixture.dispatcher.program_stays_awake(fixture.now, fixture.guest, run);
    assert_eq!(fixture.state(), State::Awake);
    assert_eq!(fixture.step(), None);
    assert_eq!(fixture.advance(), SLEEP_RETRY);
    assert!(matches!(fixture.step(), Some(Step::Sleep(..))));
}

#[test]
fn a_program_that_ends_is_started_again_after_growing_pauses() {
    let (mut fixture, mut run) = Fixture::running(true);
    let mut pauses = Vec::new();
    for attempt in 1..=5 {
        fixture.dispatcher.program_ended(fixture.now, fixture.guest, run);
        assert!(matches!(fixture.state(), State::Failed { attempts, .. } if attempts == attempt));
        assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Failed)));
        assert_eq!(fixture.step(), None);
        pauses.push(fixture.advance());
        let next = fixture.started();
        assert_ne!(next, run);
        run = next;
    }
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0]), "{pauses:?}");
    fixture.pass(Duration::from_secs(3600));
    fixture.dispatcher.program_ended(fixture.now, fixture.guest, run);
    assert!(matches!(fixture.state(), State::Failed { attempts: 1, .. }), "it had run well for long enough");
}

#[test]
fn what_an_earlier_run_says_does_not_concern_the_next_one() {
    let (mut fixture, old) = Fixture::running(true);
    fixture.dispatcher.program_ended(fixture.now, fixture.guest, old);
    assert!(matches!(fixture.step(), Some(Step::Sleep(..))));
    fixture.advance();
    let run = fixture.started();
    fixture.dispatcher.program_ended(fixture.now, fixture.guest, old);
    fixture.dispatcher.program_waits(fixture.now, fixture.guest, old, None);
    fixture.dispatcher.program_stays_awake(fixture.now, fixture.guest, old);
    assert!(!fixture.works(old, WakeReason::Event));
    assert_eq!((fixture.state(), fixture.step()), (State::Awake, None));
    fixture.waits(run);
    assert!(fixture.dispatcher.next_time().is_some());
}

#[test]
fn a_suspended_program_is_ended_at_once_asleep_or_busy_and_starts_anew_when_resumed() {
    for asleep in [false, true] {
        let (mut fixture, run) = Fixture::running(true);
        if asleep {
            fixture.waits(run);
            fixture.advance();
            assert!(matches!(fixture.step(), Some(Step::Sleep(..))));
        }
        fixture.suspend(true);
        assert_eq!(fixture.step(), Some(Step::Sleep(fixture.guest, SleepReason::Suspended)));
        assert_eq!((fixture.step(), fixture.state()), (None, State::Suspended));
        assert_eq!(fixture.dispatcher.next_time(), None);
        fixture.suspend(false);
        assert_ne!(fixture.started(), run);
    }
}

#[test]
fn a_reload_replaces_a_running_program_without_waiting_for_it() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.dispatcher.reload(fixture.now, fixture.guest);
    assert_eq!(fixture.step(), Some(Step::Load(fixture.guest)));
    fixture.dispatcher.program_ended(fixture.now, fixture.guest, run);
    fixture.dispatcher.loaded_program(fixture.now, fixture.guest, true);
    assert_ne!(fixture.started(), run);
    // The next component may be of another world.
    fixture.dispatcher.reload(fixture.now, fixture.guest);
    assert_eq!(fixture.step(), Some(Step::Load(fixture.guest)));
    fixture.dispatcher.loaded(fixture.now, fixture.guest);
    assert_eq!((fixture.step(), fixture.state()), (None, State::Cold));
}

#[test]
fn a_removed_program_and_a_drained_dispatcher_start_nothing_more() {
    let (mut fixture, run) = Fixture::running(true);
    fixture.dispatcher.remove(fixture.now, fixture.guest);
    assert_eq!(fixture.step(), Some(Step::Removed(fixture.guest)));
    fixture.dispatcher.program_ended(fixture.now, fixture.guest, run);
    assert_eq!(fixture.step(), None);

    let mut fixture = Fixture::loaded(true);
    fixture.dispatcher.drain(fixture.now);
    assert_eq!(fixture.step(), None);
    assert!(fixture.dispatcher.is_drained());
}

#[test]
fn a_thousand_programs_leave_the_components_of_others_in_memory() {
    let options = Options { component_bytes: Some(10), ..Options::default() };
    let mut dispatcher = Dispatcher::new(options);
    let settings = Settings { sleep: SleepPolicy::Immediately, ..Settings::default() };
    let guests: Vec<_> = (0..1_000).map(|_| dispatcher.add(Time::ZERO, settings.clone())).collect();
    for now in [Time::ZERO, Time::ZERO + PAUSE] {
        while let Some(step) = dispatcher.step(now) {
            match step {
                Step::Load(guest) => dispatcher.loaded_program(now, guest, true),
                Step::Start(guest, run) => dispatcher.program_waits(now, guest, run, None),
                Step::Sleep(_, SleepReason::Idle) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(guests.iter().all(|guest| dispatcher.snapshot(Time::ZERO, *guest).unwrap().state == State::Hibernated));
}
