//! HTTP requests that guests serve: which wait, which are under way, and which are refused.
//!
//! Requests have places of their own. They share neither a guest's `concurrency` nor the host's `max_runs` with its
//! reconciles: a request may wait for what a reconcile of the same guest brings about, and a flood of requests must not
//! hold up the reconciles of anybody. Which guest's request is next follows the same fair share, and what a request costs
//! is charged to the guest's reconciles as well, and the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wasm_operator_policy::End;

use super::{Dispatcher, Guest, Path, Step, WakeReason};
use crate::slots::GuestId;
use crate::timer::Time;

/// Requests that guests serve at once in the whole host unless configured: each may hold an instance and the buffers of a
/// connection.
pub const DEFAULT_MAX_REQUESTS: usize = 64;

/// Names a request; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why a request is not served. The guest has not seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such guest, or not any more.
    Unknown,
    /// As many requests as may wait for the guest do so.
    QueueFull,
    /// The configuration holds the guest back.
    Suspended,
    /// The guest is held back after a fault.
    Failed {
        /// When it may run again.
        until: Time,
    },
    /// The host is stopping.
    Draining,
}

/// A request whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// Who serves it.
    pub guest: GuestId,
    /// Which.
    pub request: RequestId,
    /// When it came; now minus this is the time that it waited.
    pub queued: Time,
    /// What it finds in memory, if the shell did as it was told.
    pub path: Path,
    /// Set if this request wakes the guest.
    pub wake: Option<WakeReason>,
}

/// The requests of one guest.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: VecDeque<(RequestId, Time)>,
    running: BTreeMap<RequestId, Time>,
}

impl Requests {
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn start(&mut self, now: Time) -> Option<(RequestId, Time)> {
        let (request, queued) = self.waiting.pop_front()?;
        self.running.insert(request, now);
        Some((request, queued))
    }

    fn withdraw(&mut self, request: RequestId) {
        self.waiting.retain(|(waiting, _)| *waiting != request);
    }
}

impl Guest {
    /// Whether a request may start now.
    pub(super) fn is_serviceable(&self, now: Time) -> bool {
        !self.removed
            && self.life.may_run_from().is_some_and(|from| from <= now)
            && self.requests.running() < self.settings.requests
            && self.requests.waiting() > 0
    }

    /// Why no request is served at the moment. A guest that is being loaded has them wait.
    fn refusal(&self, now: Time) -> Option<Refusal> {
        if self.removed {
            return Some(Refusal::Unknown);
        }
        if self.settings.suspended {
            return Some(Refusal::Suspended);
        }
        self.life.held_until().filter(|until| *until > now).map(|until| Refusal::Failed { until })
    }
}

impl Dispatcher {
    /// A request for a guest came: it waits for [`Step::Serve`] or [`Step::Refuse`].
    ///
    /// # Errors
    /// When it is refused at once. No command follows then.
    pub fn request(&mut self, now: Time, id: GuestId) -> Result<RequestId, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        self.last_request = self.last_request.wrapping_add(1);
        let request = RequestId(self.last_request);
        let guest = self.live(id).ok_or(Refusal::Unknown)?;
        if let Some(refusal) = guest.refusal(now) {
            return Err(refusal);
        }
        if guest.requests.waiting() >= guest.settings.waiting_requests {
            return Err(Refusal::QueueFull);
        }
        guest.requests.waiting.push_back((request, now));
        self.refresh(now, id);
        Ok(request)
    }

    /// Nobody waits for the request any more. One that is under way goes on until [`Dispatcher::served`].
    pub fn withdraw(&mut self, now: Time, id: GuestId, request: RequestId) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.requests.withdraw(request);
        self.refresh(now, id);
    }

    /// A [`Step::Serve`] has ended. `broken`: the guest trapped or broke a limit, and is held back for a while. `cost` is
    /// what the guest is charged for under fair share: its CPU time.
    pub fn served(&mut self, now: Time, id: GuestId, request: RequestId, broken: bool, cost: Duration) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id) else { return };
        if guest.requests.running.remove(&request).is_none() {
            return;
        }
        guest.life.finished(now, broken, guest.is_running(), random);
        guest.note_idle(now);
        self.serving = self.serving.saturating_sub(1);
        self.charge(id, cost);
        self.refresh(now, id);
    }

    /// Requests under way in the whole host.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving
    }

    pub(super) fn may_serve(&self) -> bool {
        self.serving < self.options.max_requests
    }

    /// Starts the request whose turn it is.
    pub(super) fn serve(&mut self, now: Time) -> Option<Serve> {
        let id = self.fair_requests.take()?;
        let guest = self.guests.get_mut(id)?;
        let (request, queued) = guest.requests.start(now)?;
        let path = guest.life.start(now);
        if guest.prediction.busy(queued, End::Event) {
            self.correlations.woke(id, queued.since(Time::ZERO));
        }
        self.serving = self.serving.saturating_add(1);
        self.refresh(now, id);
        let wake = (path != Path::Warm).then_some(WakeReason::Request);
        Some(Serve { guest: id, request, queued, path, wake })
    }

    /// Turns away what waits for a guest that will not serve it soon.
    pub(super) fn refuse_waiting(&mut self, now: Time, id: GuestId) {
        let draining = self.draining.then_some(Refusal::Draining);
        let Some(guest) = self.guests.get_mut(id).filter(|guest| guest.requests.waiting() > 0) else { return };
        let Some(refusal) = draining.or_else(|| guest.refusal(now)) else { return };
        let waiting = guest.requests.waiting.drain(..);
        self.refused.extend(waiting.map(|(request, _)| Step::Refuse(id, request, refusal)));
    }
}
