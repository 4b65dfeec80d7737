//! The life cycle of one guest.
//!
//! ```text
//!            Load ─► Loading ─► Cold ─┬─► Awake ─► Dormant ─► Cold
//!             ▲         │             │     ▲         │
//!             └─ reload, failed       └─────┴── run ◄─┘
//! ```
//!
//! How much of the guest is in memory (its residency) is one question; whether it may run (suspended, failed, about to
//! be loaded again) is another. [`State`] shows both as one word.

use std::time::Duration;

use crate::backoff::{Backoff, Random};
use crate::prediction::Prediction;
use crate::timer::Time;

/// How long a guest stays awake for the echo of its own write, at most: after that the read-your-writes gate has given
/// up as well.
pub const MAX_ECHO_WAIT: Duration = Duration::from_secs(5);

/// A guest's state in one word, as metrics and people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its component is being compiled and described, or waits for that. Keys queue up.
    Loading,
    /// Only its compiled file is there.
    Cold,
    /// Its compiled component is in memory, without an instance.
    Dormant,
    /// It is a program whose memory was written to disk. It goes on where it was.
    Hibernated,
    /// It has an instance, or is getting one.
    Awake,
    /// Held back after a fault. Keys queue up.
    Failed {
        /// When it may run again.
        until: Time,
        /// Faults in a row.
        attempts: u32,
    },
    /// Held back by the configuration. Keys queue up.
    Suspended,
}

/// What a run finds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// An instance, unless the guest's other runs use them all.
    Warm,
    /// The compiled component.
    Dormant,
    /// The compiled file.
    Cold,
}

/// Why a guest is put to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SleepReason {
    /// It had nothing to do.
    Idle,
    /// It trapped or broke a limit.
    Failed,
    /// It was suspended.
    Suspended,
    /// Memory is short, and it was worth the least.
    Pressure,
}

/// A step that the life cycle wants to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Load,
    /// Start its program.
    Start,
    /// Make it ready ahead of its work.
    Prepare,
    Sleep(SleepReason),
}

/// How the loop of a program does. Awake and dormant then tell whether its memory is there or on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// It is to be started.
    Ended,
    /// It runs.
    Runs {
        /// From when on it may be hibernated; None for never.
        sleeps_from: Option<Time>,
        /// Until then its wait counts as a pause.
        pauses_until: Time,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Residency {
    /// To be loaded.
    Absent,
    Loading,
    Cold,
    Dormant,
    Awake {
        since: Time,
    },
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    attempts: u32,
    until: Time,
    /// The time without a fault after which the faults are forgotten: as long as the guest was held back, so a guest that
    /// fails now and then is held back at most half of the time.
    probation: Duration,
}

/// The state machine of one guest. Transitions that do not fit the state are ignored.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    residency: Residency,
    suspended: bool,
    reload: bool,
    fault: Option<Fault>,
    idle_since: Time,
    echo_since: Option<Time>,
    /// Time awake, up to the last sleep.
    resident: Duration,
}

impl Lifecycle {
    pub(crate) fn new(suspended: bool) -> Self {
        Self {
            residency: Residency::Absent,
            suspended,
            reload: false,
            fault: None,
            idle_since: Time::ZERO,
            echo_since: None,
            resident: Duration::ZERO,
        }
    }

    pub(crate) fn state(&self, now: Time) -> State {
        if self.suspended {
            return State::Suspended;
        }
        if let Some(Fault { until, attempts, .. }) = self.fault
            && until > now
        {
            return State::Failed { until, attempts };
        }
        match self.residency {
            Residency::Absent | Residency::Loading => State::Loading,
            Residency::Cold => State::Cold,
            Residency::Dormant => State::Dormant,
            Residency::Awake { .. } => State::Awake,
        }
    }

    /// From when on the guest may run, as far as is known; None while something else must happen first.
    pub(crate) fn may_run_from(&self) -> Option<Time> {
        let loaded = !matches!(self.residency, Residency::Absent | Residency::Loading);
        (loaded && !self.suspended && !self.reload).then(|| self.held_until().unwrap_or(Time::ZERO))
    }

    pub(crate) fn is_awake(&self) -> bool {
        matches!(self.residency, Residency::Awake { .. })
    }

    /// If the guest is dormant, when it was last in use.
    pub(crate) fn dormant_since(&self) -> Option<Time> {
        (self.residency == Residency::Dormant).then_some(self.idle_since)
    }

    /// Total time awake.
    pub(crate) fn resident(&self, now: Time) -> Duration {
        match self.residency {
            Residency::Awake { since } => self.resident.saturating_add(now.since(since)),
            _ => self.resident,
        }
    }

    /// The next step of the guest's own and its time. `busy`: runs are under way or wait for a free place, or its program
    /// has something to do. `program`: None for a guest that has no loop.
    pub(crate) fn next_move(
        &self,
        now: Time,
        prediction: &Prediction,
        busy: bool,
        program: Option<Loop>,
    ) -> Option<(Time, Move)> {
        let sleeps_from = match (self.residency, program) {
            // A program never ends by itself, so nothing is waited for.
            (Residency::Awake { .. } | Residency::Dormant, Some(Loop::Runs { .. })) if self.suspended => {
                return Some((Time::ZERO, Move::Sleep(SleepReason::Suspended)));
            }
            (Residency::Dormant | Residency::Cold, Some(Loop::Ended)) => {
                return Some((self.may_run_from()?, Move::Start));
            }
            (Residency::Awake { .. }, Some(Loop::Runs { sleeps_from, pauses_until })) => sleeps_from?.max(pauses_until),
            _ => Time::ZERO,
        };
        match self.residency {
            Residency::Absent if !self.suspended => Some((self.held_until().unwrap_or(Time::ZERO), Move::Load)),
            Residency::Awake { .. } if !busy => {
                if self.suspended {
                    return Some((Time::ZERO, Move::Sleep(SleepReason::Suspended)));
                }
                // Awake and held back: a run has just broken something. A later good run would have outlived the wait.
                if self.fault.is_some_and(|fault| fault.until > self.idle_since) {
                    return Some((Time::ZERO, Move::Sleep(SleepReason::Failed)));
                }
                let at = prediction.resident_until(now).unwrap_or(Some(Time::ZERO))?;
                let at = self.echo_since.map_or(at, |since| at.max(since + MAX_ECHO_WAIT));
                Some((at.max(sleeps_from), Move::Sleep(SleepReason::Idle)))
            }
            Residency::Dormant | Residency::Cold if !busy => {
                let from = self.may_run_from()?;
                Some((prediction.ready_at(now.max(from))?.max(from), Move::Prepare))
            }
            _ => None,
        }
    }

    /// Takes the step that is due.
    pub(crate) fn take_move(
        &mut self,
        now: Time,
        prediction: &Prediction,
        busy: bool,
        program: Option<Loop>,
    ) -> Option<Move> {
        let (_, step) = self.next_move(now, prediction, busy, program).filter(|(at, _)| *at <= now)?;
        match step {
            Move::Load => self.residency = Residency::Loading,
            Move::Start | Move::Prepare => self.residency = Residency::Awake { since: now },
            Move::Sleep(_) => self.sleep(now),
        }
        Some(step)
    }

    /// Its instances are dropped.
    pub(crate) fn sleep(&mut self, now: Time) {
        self.resident = self.resident(now);
        self.residency = Residency::Dormant;
    }

    /// It could not be made ready.
    pub(crate) fn prepare_failed(&mut self, now: Time, random: &mut Random) {
        self.broke(now, random);
    }

    pub(crate) fn loaded(&mut self, now: Time) {
        if self.residency == Residency::Loading {
            self.residency = Residency::Cold;
            self.idle_since = now;
            self.reload_if_asked(now, false);
        }
    }

    pub(crate) fn load_failed(&mut self, now: Time, random: &mut Random) {
        if self.residency == Residency::Loading {
            self.residency = Residency::Absent;
            // Asked again while it loaded: the new component gets its chance at once.
            if !std::mem::take(&mut self.reload) {
                self.broke(now, random);
            }
        }
    }

    /// Has the component loaded again as soon as nothing runs. `busy`: runs are under way.
    pub(crate) fn reload(&mut self, now: Time, busy: bool) {
        self.fault = None;
        if self.residency != Residency::Absent {
            self.reload = true;
            self.reload_if_asked(now, busy);
        }
    }

    pub(crate) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Lets the guest run again; a person asks for this, so earlier faults no longer hold it back.
    pub(crate) fn resume(&mut self, now: Time, busy: bool) {
        if self.suspended {
            self.suspended = false;
            self.fault = None;
            self.reload_if_asked(now, busy);
        }
    }

    /// A run starts.
    pub(crate) fn start(&mut self, now: Time) -> Path {
        let path = match self.residency {
            Residency::Awake { .. } => return Path::Warm,
            Residency::Dormant => Path::Dormant,
            _ => Path::Cold,
        };
        self.residency = Residency::Awake { since: now };
        path
    }

    /// A run ended. `busy`: others are under way.
    pub(crate) fn finished(&mut self, now: Time, broken: bool, busy: bool, random: &mut Random) {
        self.idle_since = now;
        if broken {
            self.broke(now, random);
        } else if self.fault.is_some_and(|fault| now >= fault.until + fault.probation) {
            self.fault = None;
        }
        self.reload_if_asked(now, busy);
    }

    /// The guest's program ended. Earlier faults are forgotten if it has run long enough since.
    pub(crate) fn program_ended(&mut self, now: Time, random: &mut Random) {
        if self.fault.is_some_and(|fault| now >= fault.until + fault.probation) {
            self.fault = None;
        }
        self.finished(now, true, false, random);
    }

    /// Its program is in memory, whatever was decided.
    pub(crate) fn stays_awake(&mut self, now: Time) {
        if self.residency == Residency::Dormant {
            self.residency = Residency::Awake { since: now };
        }
    }

    /// The guest has (or no longer has) a write whose event it has not seen.
    pub(crate) fn echo_pending(&mut self, now: Time, pending: bool) {
        self.echo_since = pending.then(|| self.echo_since.unwrap_or(now));
    }

    pub(crate) fn unload(&mut self) {
        if self.residency == Residency::Dormant {
            self.residency = Residency::Cold;
        }
    }

    /// Until when it is held back after its last fault; may be over.
    pub(crate) fn held_until(&self) -> Option<Time> {
        self.fault.map(|fault| fault.until)
    }

    fn broke(&mut self, now: Time, random: &mut Random) {
        let attempts = match self.fault {
            // Several instances broke at once: one fault.
            Some(fault) if fault.until > now => return,
            Some(fault) => fault.attempts,
            None => 0,
        };
        let wait = Backoff::GUEST.delay(attempts, random);
        self.fault = Some(Fault { attempts: attempts.saturating_add(1), until: now + wait, probation: wait });
    }

    fn reload_if_asked(&mut self, now: Time, busy: bool) {
        if self.reload && !self.suspended && !busy && self.residency != Residency::Loading {
            self.resident = self.resident(now);
            self.residency = Residency::Absent;
            self.reload = false;
        }
    }
}
