//! Bodies of answers: whole, or streamed through under the guest's limits.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::error::BodyError;
use super::managed_fields::ManagedFieldsFilter;
use super::watch::WatchBody;

/// The body of an answer to a guest.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// The place among the guest's requests in flight, free when the body is dropped.
    _in_flight: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
    Watch(Box<WatchBody>),
}

struct Stream {
    upstream: UnsyncBoxBody<Bytes, String>,
    filter: Option<ManagedFieldsFilter>,
    left: u64,
    limit: u64,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl std::fmt::Debug for WatchBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchBody").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("left", &self.left).finish_non_exhaustive()
    }
}

/// How an answer streams through.
pub(crate) struct StreamOptions {
    /// Most bytes from upstream.
    pub(crate) limit: u64,
    /// When it is cut; None: a watch, which lasts.
    pub(crate) deadline: Option<Instant>,
    /// Leave out managed fields: the body is JSON of the API server.
    pub(crate) strip_managed_fields: bool,
}

impl Body {
    /// A body that is there.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), _in_flight: Vec::new() }
    }

    /// A body that comes from elsewhere. Must be made on a runtime with a timer; it may be read on another.
    pub(crate) fn stream<B>(upstream: B, options: StreamOptions) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let stream = Stream {
            upstream: upstream.map_err(|error| error.to_string()).boxed_unsync(),
            filter: options.strip_managed_fields.then(ManagedFieldsFilter::default),
            left: options.limit,
            limit: options.limit,
            deadline: options.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            ended: false,
        };
        Self { kind: Kind::Stream(Box::new(stream)), _in_flight: Vec::new() }
    }

    /// The body of a watch that the host serves.
    pub(crate) fn watch(watch: WatchBody) -> Self {
        Self { kind: Kind::Watch(Box::new(watch)), _in_flight: Vec::new() }
    }

    /// Keeps places among the requests in flight until the body is dropped.
    pub(crate) fn hold(self, permits: Vec<OwnedSemaphorePermit>) -> Self {
        Self { _in_flight: permits, ..self }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(self.fail(BodyError::Timeout));
            }
            let chunk = match ready!(Pin::new(&mut self.upstream).poll_frame(cx)) {
                None => return Poll::Ready(self.end()),
                Some(Err(cause)) => return Poll::Ready(self.fail(BodyError::Broken(cause))),
                // Trailers are nothing that a guest needs.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => chunk,
                    Err(_) => continue,
                },
            };
            match u64::try_from(chunk.len()).ok().and_then(|length| self.left.checked_sub(length)) {
                Some(left) => self.left = left,
                None => {
                    let limit = self.limit;
                    return Poll::Ready(self.fail(BodyError::TooLarge { limit }));
                }
            }
            let chunk = match &mut self.filter {
                None => chunk,
                Some(filter) => {
                    let mut out = Vec::new();
                    filter.push(&chunk, &mut out);
                    out.into()
                }
            };
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(chunk)));
            }
        }
    }

    fn end(&mut self) -> Option<Result<Bytes, BodyError>> {
        self.ended = true;
        let mut rest = Vec::new();
        if let Some(filter) = &mut self.filter {
            filter.finish(&mut rest);
        }
        (!rest.is_empty()).then(|| Ok(rest.into()))
    }

    fn fail(&mut self, error: BodyError) -> Option<Result<Bytes, BodyError>> {
        self.ended = true;
        Some(Err(error))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(stream) => stream.poll(cx).map_ok(Frame::data),
            Kind::Watch(watch) => watch.poll(cx).map(|lines| lines.map(|lines| Ok(Frame::data(lines)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.ended,
            Kind::Watch(watch) => watch.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) | Kind::Watch(_) => SizeHint::default(),
        }
    }
}

/// Reads a body to its end, at most `limit` bytes.
pub(crate) async fn collect<B>(mut body: B, limit: u64) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        if let Ok(chunk) = frame.into_data() {
            if whole.len() as u64 + chunk.len() as u64 > limit {
                return Err(BodyError::TooLarge { limit });
            }
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::StreamBody;

    use super::*;

    fn options(limit: u64) -> StreamOptions {
        StreamOptions { limit, deadline: Some(Instant::now() + Duration::from_secs(1)), strip_managed_fields: true }
    }

    fn chunks(all: &[&'static str]) -> impl HttpBody<Data = Bytes, Error = String> + Send + Unpin + use<> {
        let frames: Vec<_> =
            all.iter().map(|c| Ok::<_, String>(Frame::data(Bytes::from_static(c.as_bytes())))).collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    fn endless() -> impl HttpBody<Data = Bytes, Error = String> + Send + Unpin {
        StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, String>>())
    }

    #[tokio::test]
    async fn a_stream_passes_through_without_managed_fields() {
        let body =
            Body::stream(chunks(&["{\"metadata\":{\"managed", "Fields\":[1],\"name\":", "\"x\"}}"]), options(100));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{\"metadata\":{\"name\":\"x\"}}");
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_cut_with_an_error() {
        let body = Body::stream(chunks(&["{\"a\":", "1234567}"]), options(10));
        assert_eq!(body.collect().await.unwrap_err(), BodyError::TooLarge { limit: 10 });
        assert_eq!(collect(chunks(&["12345", "67890", "1"]), 10).await.unwrap_err(), BodyError::TooLarge { limit: 10 });
        assert_eq!(collect(chunks(&["12345", "67890"]), 10).await.unwrap().len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_cut_at_the_deadline() {
        assert_eq!(Body::stream(endless(), options(10)).collect().await.unwrap_err(), BodyError::Timeout);
    }

    #[tokio::test]
    async fn a_broken_connection_is_an_error_and_not_an_end() {
        let frames = vec![Ok(Frame::data(Bytes::from_static(b"{"))), Err("reset".to_owned())];
        let body = Body::stream(StreamBody::new(futures::stream::iter(frames)), options(10));
        assert_eq!(body.collect().await.unwrap_err(), BodyError::Broken("reset".to_owned()));
    }
}
