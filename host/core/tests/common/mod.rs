//! What tests of the dispatcher share.

use std::time::Duration;

use wasm_operator_core::dispatch::{Dispatcher, GuestId, Job, Options, Settings, State, Step, Time};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const S: Duration = Duration::from_secs(1);

/// A dispatcher with a clock, in which loading a component works at once.
pub(crate) struct Host {
    pub(crate) now: Time,
    pub(crate) dispatcher: Dispatcher,
}

impl Host {
    pub(crate) fn new(options: Options) -> Self {
        Self { now: Time::from_micros(1_000), dispatcher: Dispatcher::new(options) }
    }

    pub(crate) fn with_guest(settings: Settings) -> (Self, GuestId) {
        let mut host = Self::new(Options::default());
        let guest = host.add(settings);
        (host, guest)
    }

    pub(crate) fn add(&mut self, settings: Settings) -> GuestId {
        let suspended = settings.suspended;
        let guest = self.dispatcher.add(self.now, settings);
        if !suspended {
            assert_eq!(self.steps(), [Step::Load(guest)]);
            self.dispatcher.loaded(self.now, guest);
            assert_eq!(self.steps(), []);
        }
        guest
    }

    pub(crate) fn steps(&mut self) -> Vec<Step> {
        std::iter::from_fn(|| self.dispatcher.step(self.now)).collect()
    }

    /// The one command there is, which must be a run.
    pub(crate) fn run(&mut self) -> Job {
        let mut steps = self.steps();
        match (steps.pop(), steps.is_empty()) {
            (Some(Step::Run(job)), true) => job,
            other => panic!("not one run but {other:?} after {steps:?}"),
        }
    }

    pub(crate) fn state(&self, guest: GuestId) -> State {
        self.dispatcher.snapshot(self.now, guest).unwrap().state
    }
}
