//! A response body under the guest's limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use wasmtime_wasi_http::Error as WasiError;

use super::{HttpError, ResponseBody};
use crate::error::Limit;
use crate::meter::Meter;

/// wasmtime reads on until a frame has data, without giving way; so an endless row of empty frames is cut here.
const MAX_EMPTY_FRAMES: u32 = 16;

/// Bounds size, time and pauses of a body. The request counts as in flight until this ends or is dropped.
pub(super) struct BoundedBody {
    open: Option<Open>,
}

struct Open {
    body: ResponseBody,
    limits: BodyLimits,
    left: u64,
    deadline: Pin<Box<Sleep>>,
    pause: Pin<Box<Sleep>>,
    meter: Arc<Meter>,
    _permit: OwnedSemaphorePermit,
}

/// What a body may use.
pub(super) struct BodyLimits {
    pub(super) bytes: u64,
    pub(super) deadline: Instant,
    pub(super) between: Duration,
}

impl BoundedBody {
    pub(super) fn new(body: ResponseBody, limits: BodyLimits, meter: Arc<Meter>, permit: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(sleep_until(limits.deadline));
        let pause = Box::pin(sleep(limits.between));
        Self { open: Some(Open { body, left: limits.bytes, limits, deadline, pause, meter, _permit: permit }) }
    }
}

impl Open {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(HttpError::ResponseTimeout)));
        }
        for _ in 0..MAX_EMPTY_FRAMES {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.pause.as_mut().poll(context));
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
            self.pause.as_mut().reset(Instant::now() + self.limits.between);
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
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        let next = ready!(open.poll(context));
        if !matches!(next, Some(Ok(_))) {
            self.open = None;
        }
        Poll::Ready(next.map(|result| result.map(Frame::data).map_err(WasiError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.body.is_end_stream())
    }
}
