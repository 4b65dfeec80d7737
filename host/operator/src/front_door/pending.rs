//! Requests between their caller and their guest.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use wasm_operator_core::dispatch::{GuestId, Refusal, RequestId};
use wasm_operator_engine::{Answer, HttpError, ResponseBody};

use crate::host::Host;

/// Requests that wait for their turn. The dispatcher bounds them.
#[derive(Default)]
pub(crate) struct Pending(Mutex<HashMap<RequestId, Waiting>>);

/// A request that waits, with all that the guest's thread needs.
pub(crate) struct Waiting {
    /// What came.
    pub(crate) incoming: Incoming,
    /// Takes the guest's answer.
    pub(crate) answer: Answer,
    /// Takes the reason why there is none.
    pub(crate) end: oneshot::Sender<End>,
    /// How the caller has left.
    pub(crate) left: oneshot::Receiver<Left>,
}

/// Why a guest gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Refused(Refusal),
    /// It cannot be started.
    NoInstance,
    /// It trapped or broke a limit.
    Broken,
    /// It returned without an answer.
    NoAnswer,
    /// It took too long.
    TooLate,
    /// Its component exports no handler.
    ServesNothing,
}

/// How a caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// With the whole answer.
    Served,
    /// With an answer whose body it did not read, or not to its end.
    Answered,
    /// Without an answer.
    Early,
}

/// What the caller's side waits for.
pub(crate) struct Expected {
    pub(crate) answer: oneshot::Receiver<Result<http::Response<ResponseBody>, HttpError>>,
    pub(crate) end: oneshot::Receiver<End>,
    pub(crate) ticket: Ticket,
}

/// The caller's hold on a request: when it is dropped the request is given up.
pub(crate) struct Ticket {
    host: Arc<Host>,
    guest: GuestId,
    request: RequestId,
    leave: Option<oneshot::Sender<Left>>,
    answered: bool,
}

/// A request before it has its place.
pub(crate) struct Incoming {
    /// What the guest sees.
    pub(crate) request: Request<Bytes>,
    /// Its name in the log.
    pub(crate) id: String,
    /// Who sent it, for the log.
    pub(crate) user: String,
    /// When it is too late.
    pub(crate) deadline: Instant,
    /// Bytes of the answer's body.
    pub(crate) response_bytes: u64,
    /// The part of the host's memory that the body takes.
    pub(crate) body: OwnedSemaphorePermit,
}

impl Pending {
    /// Has a request wait for the guest.
    pub(crate) fn enqueue(host: &Arc<Host>, guest: GuestId, incoming: Incoming) -> Result<Expected, Refusal> {
        let (answer, expected_answer) = oneshot::channel();
        let (end, expected_end) = oneshot::channel();
        let (leave, left) = oneshot::channel();
        let waiting = Waiting { incoming, answer, end, left };
        let request = host.scheduler.tell(|dispatcher, now| {
            let request = dispatcher.request(now, guest)?;
            // Under the lock, so that the dispatcher's command finds it.
            host.pending.0.lock().insert(request, waiting);
            Ok(request)
        })?;
        let ticket = Ticket { host: Arc::clone(host), guest, request, leave: Some(leave), answered: false };
        Ok(Expected { answer: expected_answer, end: expected_end, ticket })
    }

    /// Takes out a request whose turn it is, or that is refused; None if its caller has left.
    pub(crate) fn take(&self, request: RequestId) -> Option<Waiting> {
        self.0.lock().remove(&request)
    }
}

impl Ticket {
    /// The head of the answer is there.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// The answer was read to its end: the guest may finish what it does after it.
    pub(crate) fn served(mut self) {
        self.leave(Left::Served);
    }

    fn leave(&mut self, how: Left) {
        if let Some(leave) = self.leave.take() {
            // The call may have ended already.
            let _ = leave.send(how);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave(if self.answered { Left::Answered } else { Left::Early });
        let waited = self.host.pending.take(self.request);
        if waited.is_some() {
            self.host.scheduler.tell(|dispatcher, now| dispatcher.withdraw(now, self.guest, self.request));
        }
    }
}
