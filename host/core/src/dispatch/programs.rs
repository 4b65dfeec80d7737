//! Guests of the world `operator`: programs with a loop of their own. They have no keys. A program is started when it is
//! loaded, is idle while it waits for the host, may be hibernated then, and is started again after a pause when it ends.

use std::time::Duration;

use wasm_operator_policy::End;

use super::{Dispatcher, Guest, WakeReason};
use crate::lifecycle::{Loop, SleepReason, State};
use crate::slots::GuestId;
use crate::timer::Time;

/// How long a program that could not be hibernated, because the disk is full for example, stays awake at least.
pub const SLEEP_RETRY: Duration = Duration::from_secs(60);

/// How long a program waits before it counts as asleep to its sleep policy. Default 10 ms: a loop waits several times for each
/// event, for the delay queue of its scheduler (kube-rs rounds up to a millisecond) and for the echo of its own write, and
/// a hibernation and a wake for each of these cost more than the memory is worth meanwhile.
pub const PAUSE: Duration = Duration::from_millis(10);

/// One run of a program; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProgramRun(pub(super) u64);

/// The loop of one guest.
#[derive(Debug)]
pub(super) struct Program {
    /// None between two runs.
    run: Option<ProgramRun>,
    /// It has its thread, or waits for an answer.
    pub(super) works: bool,
    /// When the earliest timer is due for which it waits. It goes on by itself then.
    pub(super) timer: Option<Time>,
    /// Whether it may be hibernated at all.
    sleeps: bool,
    /// Not before then, because it could not be lately.
    sleeps_from: Time,
    /// Until then it may only pause.
    pauses_until: Time,
}

impl Program {
    pub(super) fn state(&self) -> Loop {
        match self.run {
            None => Loop::Ended,
            Some(_) => {
                Loop::Runs { sleeps_from: self.sleeps.then_some(self.sleeps_from), pauses_until: self.pauses_until }
            }
        }
    }
}

impl Guest {
    pub(super) fn program_starts(&mut self, run: ProgramRun) {
        if let Some(program) = &mut self.program {
            (program.run, program.works) = (Some(run), true);
        }
    }

    /// A program that is not hibernated is ended.
    pub(super) fn program_sleeps(&mut self, reason: SleepReason) {
        if let Some(program) = &mut self.program
            && matches!(reason, SleepReason::Failed | SleepReason::Suspended)
        {
            (program.run, program.works) = (None, false);
        }
    }

    /// What ends a program's wait is about to come.
    pub(super) fn program_pauses(&mut self, now: Time) {
        if let Some(program) = &mut self.program {
            program.pauses_until = now + PAUSE;
        }
    }

    /// Whether it may be put to sleep because memory is short.
    pub(super) fn may_be_pressed(&self, now: Time) -> bool {
        match self.program_loop() {
            None => true,
            Some(Loop::Ended) => false,
            Some(Loop::Runs { sleeps_from, .. }) => sleeps_from.is_some_and(|from| from <= now),
        }
    }

    pub(super) fn state(&self, now: Time) -> State {
        match (self.life.state(now), &self.program) {
            (State::Dormant, Some(Program { run: Some(_), .. })) => State::Hibernated,
            // Between two runs, or about to begin one.
            (State::Dormant, Some(_)) => State::Cold,
            (state, _) => state,
        }
    }
}

impl Dispatcher {
    /// The answer to [`Step::Load`](super::Step::Load) for a guest whose component is a program. `sleeps`: it may be
    /// hibernated.
    pub fn loaded_program(&mut self, now: Time, id: GuestId, sleeps: bool) {
        let Some(guest) = self.live(id) else { return };
        let (sleeps_from, pauses_until) = (Time::ZERO, Time::ZERO);
        guest.program = Some(Program { run: None, works: false, timer: None, sleeps, sleeps_from, pauses_until });
        guest.life.loaded(now);
        guest.next_resync = None;
        self.refresh(now, id);
    }

    /// The program goes on after a wait, because of `cause`. Returns whether that ended its sleep.
    pub fn program_works(&mut self, now: Time, id: GuestId, run: ProgramRun, cause: WakeReason) -> bool {
        let Some(guest) = self.live(id) else { return false };
        let Some(program) = guest.program.as_mut().filter(|program| program.run == Some(run) && !program.works) else {
            return false;
        };
        program.works = true;
        let asleep = !guest.life.is_awake();
        guest.life.start(now);
        let end = if cause == WakeReason::Timer { End::Timer } else { End::Event };
        if guest.prediction.idle_since().is_some_and(|since| now.since(since) < PAUSE) {
            guest.prediction.forget_gap();
        } else if guest.prediction.busy(now, end) {
            self.correlations.woke(id, now.since(Time::ZERO));
        }
        self.refresh(now, id);
        asleep
    }

    /// The program waits, and nothing that it asked for is under way. It goes on by itself at `timer`.
    pub fn program_waits(&mut self, now: Time, id: GuestId, run: ProgramRun, timer: Option<Time>) {
        let Some(guest) = self.live(id) else { return };
        let Some(program) = guest.program.as_mut().filter(|program| program.run == Some(run)) else { return };
        (program.works, program.timer) = (false, timer);
        guest.program_pauses(now);
        guest.prediction.idle(now, timer);
        self.refresh(now, id);
    }

    /// The program could not be hibernated: it is in memory, and stays there for [`SLEEP_RETRY`].
    pub fn program_stays_awake(&mut self, now: Time, id: GuestId, run: ProgramRun) {
        let Some(guest) = self.live(id) else { return };
        let Some(program) = guest.program.as_mut().filter(|program| program.run == Some(run)) else { return };
        program.sleeps_from = now + SLEEP_RETRY;
        guest.life.stays_awake(now);
        self.refresh(now, id);
    }

    /// The program ended by itself: it is started again after the guest's backoff.
    pub fn program_ended(&mut self, now: Time, id: GuestId, run: ProgramRun) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id).filter(|guest| !guest.removed) else { return };
        let Some(program) = guest.program.as_mut().filter(|program| program.run == Some(run)) else { return };
        (program.run, program.works) = (None, false);
        guest.life.stays_awake(now);
        guest.life.program_ended(now, random);
        self.refresh(now, id);
    }
}
