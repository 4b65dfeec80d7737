//! A response body under the guest's limits.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::Error as WasiError;

use super::{HttpError, ResponseBody};
use crate::error::Limit;
use crate::meter::Meter;

/// wasmtime reads on until a frame has data, without giving way; so an endless row of empty frames is cut here.
const MAX_EMPTY_FRAMES: u32 = 16;

/// The responses of one call whose bodies have not ended. They are given up at its end: what a guest neither reads nor drops,
/// until its language collects it perhaps, would hold back its next requests and the connections that it came on.
#[derive(Default)]
pub(super) struct Responses(Mutex<Unread>);

#[derive(Default)]
struct Unread {
    /// The call has ended.
    ended: bool,
    next: u64,
    bodies: HashMap<u64, Open>,
}

impl Responses {
    /// Gives up what is left, and what is still to come.
    pub(super) fn end(&self) {
        let mut unread = self.0.lock();
        unread.ended = true;
        let bodies = std::mem::take(&mut unread.bodies);
        drop(unread);
        drop(bodies);
    }

    /// Bounds a body. None after the call's end.
    pub(super) fn bound(
        self: &Arc<Self>,
        body: ResponseBody,
        limits: BodyLimits,
        meter: Arc<Meter>,
        permit: OwnedSemaphorePermit,
    ) -> Option<BoundedBody> {
        let last = Instant::now();
        let mut unread = self.0.lock();
        if unread.ended {
            return None;
        }
        let id = unread.next;
        unread.next += 1;
        unread
            .bodies
            .insert(id, Open { body, left: limits.bytes, limits, last, silence: None, meter, _permit: permit });
        Some(BoundedBody { responses: Arc::clone(self), id, ended: false })
    }
}

/// Bounds size, time and pauses of a body. The request counts as in flight until this ends or is dropped, or the call ends.
pub(super) struct BoundedBody {
    responses: Arc<Responses>,
    id: u64,
    ended: bool,
}

struct Open {
    body: ResponseBody,
    limits: BodyLimits,
    left: u64,
    /// When the last data came.
    last: Instant,
    /// Ends when it has been silent for too long. Most bodies are there when they are read, and need no timer.
    silence: Option<Pin<Box<Sleep>>>,
    meter: Arc<Meter>,
    _permit: OwnedSemaphorePermit,
}

/// What a body may use.
pub(super) struct BodyLimits {
    pub(super) bytes: u64,
    pub(super) deadline: Instant,
    pub(super) between: Duration,
}

impl Open {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        if Instant::now() >= self.limits.deadline {
            return Poll::Ready(Some(Err(HttpError::ResponseTimeout)));
        }
        for _ in 0..MAX_EMPTY_FRAMES {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                let end = self.limits.deadline.min(self.last + self.limits.between);
                let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(end)));
                ready!(silence.as_mut().poll(context));
                return Poll::Ready(Some(Err(HttpError::ResponseTimeout)));
            };
            let data = match frame {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            // Trailers end a body as well; the Kubernetes API has none, and nothing bounds their size.
            let Ok(data) = data else {
                return Poll::Ready(None);
            };
            if data.is_empty() {
                continue;
            }
            let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(left) = self.left.checked_sub(size) else {
                self.meter.note(Limit::ResponseBytes);
                return Poll::Ready(Some(Err(HttpError::ResponseBodySize(self.limits.bytes))));
            };
            self.left = left;
            (self.last, self.silence) = (Instant::now(), None);
            return Poll::Ready(Some(Ok(data)));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = WasiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.responses.0.lock().bodies.get_mut(&self.id) {
            Some(open) => ready!(open.poll(context)),
            None => Some(Err(HttpError::ConnectionTerminated)),
        };
        if !matches!(next, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(next.map(|result| result.map(Frame::data).map_err(WasiError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.responses.0.lock().bodies.get(&self.id).is_some_and(|open| open.body.is_end_stream())
    }
}

impl BoundedBody {
    fn end(&mut self) {
        self.ended = true;
        let open = self.responses.0.lock().bodies.remove(&self.id);
        drop(open);
    }
}

impl Drop for BoundedBody {
    fn drop(&mut self) {
        self.end();
    }
}
