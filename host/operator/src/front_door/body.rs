//! The bodies of requests and answers, under the front door's bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use wasm_operator_engine::{HttpError, ResponseBody};

use super::answer::Denial;
use super::handle::Observed;
use super::pending::Ticket;

/// Between two parts of a request's body.
const BODY_PAUSE: Duration = Duration::from_secs(10);

/// Reads the whole body of a request; what it takes of `budget`, in KiB, is given back with the permit. A guest sees only
/// bodies that are complete, and a slow caller occupies none.
pub(super) async fn collect<B>(
    headers: &HeaderMap,
    mut body: B,
    limit: u64,
    deadline: Instant,
    budget: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Denial>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Denial::TooLarge(limit));
    }
    let take = |bytes: usize| {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(budget).try_acquire_many_owned(kib).map_err(|_| Denial::TooManyBodies)
    };
    let mut permit = take(0)?;
    let mut collected = BytesMut::new();
    loop {
        let pause = deadline.min(Instant::now() + BODY_PAUSE);
        let frame = match timeout_at(pause, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Denial::BrokenBody),
            Ok(None) => return Ok((collected.freeze(), permit)),
            Err(_) => return Err(Denial::SlowBody),
        };
        // Trailers are of no use to anybody here.
        let Ok(data) = frame.into_data() else { continue };
        let size = collected.len().saturating_add(data.len());
        if u64::try_from(size).is_ok_and(|size| size > limit) {
            return Err(Denial::TooLarge(limit));
        }
        let more = size.div_ceil(1024).saturating_sub(permit.num_permits());
        permit.merge(take(more.saturating_mul(1024))?);
        collected.extend_from_slice(&data);
    }
}

/// The body of a guest's answer. It ends at the request's deadline, and the request is given up when it is dropped.
pub(super) struct ServedBody {
    pub(super) body: ResponseBody,
    pub(super) deadline: Pin<Box<Sleep>>,
    pub(super) ticket: Option<Ticket>,
    pub(super) _observed: Observed,
}

impl ServedBody {
    pub(super) fn new(body: ResponseBody, deadline: Instant, ticket: Ticket, observed: Observed) -> Self {
        Self { body, deadline: Box::pin(sleep_until(deadline)), ticket: Some(ticket), _observed: observed }
    }
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(HttpError::ResponseTimeout)));
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if next.is_none()
            && let Some(ticket) = self.ticket.take()
        {
            ticket.served();
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that keeps something for as long as it is sent.
pub(super) struct Held<T> {
    body: ResponseBody,
    _kept: T,
}

impl<T> Held<T> {
    pub(super) fn new(body: ResponseBody, kept: T) -> Self {
        Self { body, _kept: kept }
    }
}

impl<T: Unpin> Body for Held<T> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn parts(count: usize) -> impl Body<Data = Bytes, Error = HttpError> + Unpin {
        let part = || Ok(Frame::data(Bytes::from(vec![b'x'; 1000])));
        StreamBody::new(stream::iter((0..count).map(move |_| part())))
    }

    #[tokio::test]
    async fn a_body_takes_its_part_of_the_budget_until_the_permit_is_dropped() {
        let budget = Arc::new(Semaphore::new(10));
        let (bytes, permit) = collect(&HeaderMap::new(), parts(5), 5_000, far(), &budget).await.unwrap();
        assert_eq!((bytes.len(), budget.available_permits()), (5_000, 5));
        let denied = collect(&HeaderMap::new(), parts(6), 6_000, far(), &budget).await.unwrap_err();
        assert_eq!((denied, budget.available_permits()), (Denial::TooManyBodies, 5));
        drop(permit);
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_as_announced_and_as_found() {
        let budget = Arc::new(Semaphore::new(10));
        let announced = HeaderMap::from_iter([(CONTENT_LENGTH, "5001".parse().unwrap())]);
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, HttpError>>());
        assert_eq!(collect(&announced, never, 5_000, far(), &budget).await.unwrap_err(), Denial::TooLarge(5_000));
        let found = collect(&HeaderMap::new(), parts(6), 5_999, far(), &budget).await.unwrap_err();
        assert_eq!((found, budget.available_permits()), (Denial::TooLarge(5_999), 10));
        let empty = collect(&HeaderMap::new(), Full::<Bytes>::default(), 0, far(), &budget).await.unwrap();
        assert!(empty.0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_or_trickles_is_given_up() {
        let budget = Arc::new(Semaphore::new(10));
        let began = Instant::now();
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, HttpError>>());
        assert_eq!(collect(&HeaderMap::new(), silent, 10, far(), &budget).await.unwrap_err(), Denial::SlowBody);
        assert_eq!(began.elapsed(), BODY_PAUSE);
        let trickle = stream::iter(0..1_000).then(|_| async {
            tokio::time::sleep(BODY_PAUSE / 2).await;
            Ok::<_, HttpError>(Frame::data(Bytes::from_static(b"x")))
        });
        let trickle = StreamBody::new(Box::pin(trickle));
        let deadline = far();
        assert_eq!(collect(&HeaderMap::new(), trickle, 5_000, deadline, &budget).await.unwrap_err(), Denial::SlowBody);
        assert!(Instant::now() >= deadline);
    }
}
