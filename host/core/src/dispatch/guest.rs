//! One guest as the dispatcher keeps it.

use super::programs::Program;
use super::requests::Requests;
use crate::dispatch::Settings;
use crate::lifecycle::{Lifecycle, Loop};
use crate::prediction::Prediction;
use crate::queue::Queue;
use crate::timer::Time;

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) settings: Settings,
    pub(super) queue: Queue,
    pub(super) requests: Requests,
    pub(super) life: Lifecycle,
    pub(super) prediction: Prediction,
    /// Its loop, if it has one: then it has no keys.
    pub(super) program: Option<Program>,
    /// It is being made ready ahead of its work.
    pub(super) preparing: bool,
    /// The end of the coalescing window.
    pub(super) window: Option<Time>,
    pub(super) next_resync: Option<Time>,
    /// Its place among the dormant guests.
    pub(super) dormant: Option<Time>,
    pub(super) bytes: u64,
    pub(super) removed: bool,
}

impl Guest {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            queue: Queue::default(),
            requests: Requests::default(),
            life: Lifecycle::new(settings.suspended),
            prediction: Prediction::new(settings.sleep),
            program: None,
            preparing: false,
            window: None,
            next_resync: None,
            dormant: None,
            bytes: 0,
            removed: false,
            settings,
        }
    }

    pub(super) fn has_free_run(&self) -> bool {
        self.queue.running() < self.settings.concurrency.max(1)
    }

    pub(super) fn is_runnable(&self, now: Time) -> bool {
        !self.removed
            && self.life.may_run_from().is_some_and(|from| from <= now)
            && self.window.is_none_or(|end| end <= now)
            && self.has_free_run()
            && self.queue.is_ready()
    }

    /// Whether a reconcile or a request is under way.
    pub(super) fn is_running(&self) -> bool {
        self.queue.running() > 0 || self.requests.running() > 0
    }

    pub(super) fn is_busy(&self, now: Time) -> bool {
        let works = self.program.as_ref().is_some_and(|program| program.works);
        works || self.is_running() || self.preparing || self.is_runnable(now) || self.is_serviceable(now)
    }

    /// Begins an idle gap, if nothing runs and nothing waits to.
    pub(super) fn note_idle(&mut self, now: Time) {
        if !self.is_running() && !self.queue.is_ready() && self.requests.waiting() == 0 {
            let timer = self.timer();
            self.prediction.idle(now, timer);
        }
    }

    /// When the next timer is due that gives it work.
    pub(super) fn timer(&self) -> Option<Time> {
        match &self.program {
            Some(program) => program.timer,
            None => self.queue.next_time(),
        }
    }

    pub(super) fn program_loop(&self) -> Option<Loop> {
        self.program.as_ref().map(Program::state)
    }

    /// When the dispatcher has something to do for it.
    pub(super) fn attention(&self, now: Time) -> Option<Time> {
        if self.removed {
            return (!self.is_running() && !self.preparing).then_some(Time::ZERO);
        }
        let own = self.life.next_move(now, &self.prediction, self.is_busy(now), self.program_loop()).map(|(at, _)| at);
        let work = self.life.may_run_from().and_then(|from| {
            // Keys that are ready now are the fair queue's business, once nothing else holds them.
            let held = from.max(self.window.unwrap_or(Time::ZERO));
            let ready = (self.queue.is_ready() && held > now).then_some(held);
            // A program's own timers wake it without the dispatcher's help.
            let timers = [self.queue.next_time(), self.next_resync].into_iter().flatten().min();
            [ready, timers.map(|at| at.max(from))].into_iter().flatten().min()
        });
        [own, work].into_iter().flatten().min()
    }
}
