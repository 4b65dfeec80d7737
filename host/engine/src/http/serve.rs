//! From an incoming request to `wasi:http/incoming-handler`, and from there back to an answer under the host's limits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, IncomingRequest as HostIncomingRequest, ResponseOutparam as HostResponseOutparam, Scheme,
};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error as WasiError, WasiHttpView};

use super::hooks::content_length;
use super::{HttpError, ResponseBody};
use crate::state::State;

/// What a guest may say of why it has no answer.
const MAX_ERROR_TEXT: usize = 1024;

/// Takes the guest's answer: head and body, or the error that it gave instead. Dropped unused if the guest gave none.
pub type Answer = oneshot::Sender<Result<http::Response<ResponseBody>, HttpError>>;

/// What one request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Wall time of the call, the guest's waiting for the caller to read included.
    pub time: Duration,
    /// Bytes in the body of the answer.
    pub response_bytes: u64,
}

/// A call that serves a request. If it is dropped before the call returned, what the guest left of the body is no end.
pub(crate) struct Answering {
    broken: Arc<AtomicBool>,
    returned: AtomicBool,
}

impl Answering {
    pub(crate) fn new() -> Self {
        Self { broken: Arc::default(), returned: AtomicBool::new(false) }
    }

    /// The guest returned from the call.
    pub(crate) fn returned(&self) {
        self.returned.store(true, Ordering::Release);
    }

    /// The arguments of the guest's `handle`.
    pub(crate) fn resources(
        &self,
        state: &mut State,
        request: http::Request<Bytes>,
        limits: ServeLimits,
        answer: Answer,
    ) -> wasmtime::Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)> {
        let request = request.map(|body| Full::new(body).map_err(|never| -> WasiError { match never {} }));
        let broken = Arc::clone(&self.broken);
        let mut view = state.http();
        let request = view.new_incoming_request(Scheme::Https, request)?;
        let answer = view.new_response_outparam_from_callback(move |response| {
            // Whoever asked may be gone.
            let _ = answer.send(response.map_err(given_up).and_then(|response| bounded(response, limits, broken)));
        })?;
        Ok((request, answer))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.returned.load(Ordering::Acquire) {
            self.broken.store(true, Ordering::Release);
        }
    }
}

fn given_up(code: ErrorCode) -> HttpError {
    let text = match code {
        ErrorCode::InternalError(Some(text)) => text,
        code => format!("{code:?}"),
    };
    HttpError::Internal(text.chars().take(MAX_ERROR_TEXT).collect())
}

fn bounded(
    response: http::Response<HyperOutgoingBody>,
    limits: ServeLimits,
    broken: Arc<AtomicBool>,
) -> Result<http::Response<ResponseBody>, HttpError> {
    let limit = limits.response_bytes;
    if content_length(response.headers()).is_some_and(|length| length > limit) {
        return Err(HttpError::ResponseBodySize(limit));
    }
    Ok(response.map(|body| ServedBody { body: Some(body), left: limit, limit, broken }.boxed_unsync()))
}

/// The body that a guest writes.
struct ServedBody {
    /// None after its end.
    body: Option<HyperOutgoingBody>,
    left: u64,
    limit: u64,
    broken: Arc<AtomicBool>,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let next = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(_)) => {
                self.body = None;
                return Poll::Ready(Some(Err(HttpError::ResponseIncomplete)));
            }
            None => None,
        };
        // Trailers end a body as well; nothing bounds their size.
        let Some(data) = next else {
            self.body = None;
            // A guest that traps leaves its body just as one that has completed it does.
            let broken = self.broken.load(Ordering::Acquire);
            return Poll::Ready(broken.then_some(Err(HttpError::ResponseIncomplete)));
        };
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(size) else {
            self.body = None;
            return Poll::Ready(Some(Err(HttpError::ResponseBodySize(self.limit))));
        };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map_or_else(|| http_body::SizeHint::with_exact(0), Body::size_hint)
    }
}
