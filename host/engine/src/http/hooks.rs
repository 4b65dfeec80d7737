//! From `wasi:http/outgoing-handler` to [`OutgoingHttp`](super::OutgoingHttp), under the guest's limits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use wasm_operator_core::limits::Limits;
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody, WasiHttpHooks};

use super::body::{BodyLimits, Responses};
use super::{HttpError, OutgoingHttp, Timeouts};
use crate::call::panic_text;
use crate::error::Limit;
use crate::meter::{Meter, Stop};

/// What a guest may write to a request's body at once; the host holds two such pieces per request.
const OUTGOING_CHUNK_BYTES: usize = 64 << 10;
/// Headers of a response. The API server's have some hundred bytes.
const RESPONSE_HEADER_BYTES: u32 = 32 << 10;

type Response = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), WasiError>> + Send>);

/// The limits of requests, in the host's units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpLimits {
    total: Duration,
    request_bytes: u64,
    response_bytes: u64,
    in_flight: u32,
    pub(crate) per_call: u32,
}

impl From<&Limits> for HttpLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            total: Duration::from_millis(limits.request_milliseconds),
            request_bytes: limits.request_bytes,
            response_bytes: limits.response_bytes,
            in_flight: limits.requests_in_flight,
            per_call: limits.requests_per_call,
        }
    }
}

/// The HTTP side of one instance.
pub(crate) struct Hooks {
    /// None while the guest describes itself: nothing is sent then.
    handler: Option<Arc<dyn OutgoingHttp>>,
    limits: HttpLimits,
    meter: Arc<Meter>,
    in_flight: Arc<Semaphore>,
    /// Of the call under way.
    responses: Arc<Responses>,
    sent: u32,
}

impl Hooks {
    pub(crate) fn new(handler: Option<Arc<dyn OutgoingHttp>>, limits: HttpLimits, meter: Arc<Meter>) -> Self {
        let permits = usize::try_from(limits.in_flight).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self {
            handler,
            limits,
            meter,
            in_flight: Arc::new(Semaphore::new(permits)),
            responses: Arc::default(),
            sent: 0,
        }
    }

    /// Nothing is sent any more.
    pub(crate) fn take_handler(&mut self) -> Option<Arc<dyn OutgoingHttp>> {
        self.handler.take()
    }

    /// Requests are sent again.
    pub(crate) fn give_handler(&mut self, handler: Option<Arc<dyn OutgoingHttp>>) {
        self.handler = handler;
    }

    /// Each call has its own number of requests, and its own responses.
    pub(crate) fn begin_call(&mut self) {
        (self.sent, self.responses) = (0, Arc::default());
    }

    /// Responses that the call did not read are given up, so that they do not count as in flight in the next one.
    pub(crate) fn end_call(&mut self) {
        self.responses.end();
    }

    fn admit(&mut self, options: Option<RequestOptions>) -> Result<Exchange, HttpError> {
        let handler = Arc::clone(self.handler.as_ref().ok_or(HttpError::Denied)?);
        if self.sent >= self.limits.per_call {
            self.meter.note(Limit::Requests);
            self.meter.stop(Stop::Limit(Limit::Requests));
            return Err(HttpError::TooManyRequests);
        }
        self.sent += 1;
        let options = options.unwrap_or_default();
        let total = self.limits.total;
        let ceiling = |wish: Option<Duration>| wish.map_or(total, |wish| wish.min(total));
        Ok(Exchange {
            handler,
            limits: self.limits,
            meter: Arc::clone(&self.meter),
            in_flight: Arc::clone(&self.in_flight),
            responses: Arc::clone(&self.responses),
            deadline: Instant::now() + total,
            timeouts: Timeouts {
                connect: ceiling(options.connect_timeout),
                first_byte: ceiling(options.first_byte_timeout),
                between_bytes: ceiling(options.between_bytes_timeout),
                total,
            },
        })
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), WasiError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Response, WasiError>> + Send> {
        let exchange = match self.admit(options) {
            Ok(exchange) => exchange,
            Err(error) => return Box::new(std::future::ready(Err(error.into()))),
        };
        let meter = Arc::clone(&self.meter);
        // A panic here would surface in whoever polls the guest; it belongs to this call alone.
        Box::new(AssertUnwindSafe(exchange.run(request)).catch_unwind().map(move |result| match result {
            Ok(result) => result.map_err(WasiError::from),
            Err(panic) => {
                let text = panic_text(&*panic);
                meter.stop(Stop::Panic(text));
                Err(HttpError::Internal("the host failed".into()).into())
            }
        }))
    }

    // The handler knows the authority from the URI.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        OUTGOING_CHUNK_BYTES
    }
}

/// One request that may be sent.
struct Exchange {
    handler: Arc<dyn OutgoingHttp>,
    limits: HttpLimits,
    meter: Arc<Meter>,
    in_flight: Arc<Semaphore>,
    responses: Arc<Responses>,
    deadline: Instant,
    timeouts: Timeouts,
}

impl Exchange {
    async fn run(self, request: http::Request<WasiBody>) -> Result<Response, HttpError> {
        // Waiting is kinder than refusing: a guest that starts fifty requests at once means no harm. One that never reads
        // its responses waits for itself and gets the error.
        let permit = match timeout_at(self.deadline, Arc::clone(&self.in_flight).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => {
                self.meter.note(Limit::RequestsInFlight);
                return Err(HttpError::TooManyRequests);
            }
        };
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let body = timeout_at(self.deadline, self.collect(&parts.headers, body))
            .await
            .unwrap_or(Err(HttpError::ResponseTimeout))?;
        let first_byte = self.deadline.min(Instant::now() + self.timeouts.first_byte);
        let sent = self.handler.send(http::Request::from_parts(parts, body), self.timeouts);
        let response = timeout_at(first_byte, sent).await.unwrap_or(Err(HttpError::ResponseTimeout))?;

        let header_bytes: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len().saturating_add(value.len())).sum();
        if u32::try_from(header_bytes).is_ok_and(|bytes| bytes > RESPONSE_HEADER_BYTES) {
            return Err(HttpError::ResponseHeaderSize(RESPONSE_HEADER_BYTES));
        }
        let limit = self.limits.response_bytes;
        if !is_head && content_length(response.headers()).is_some_and(|length| length > limit) {
            self.meter.note(Limit::ResponseBytes);
            return Err(HttpError::ResponseBodySize(limit));
        }
        let limits = BodyLimits { bytes: limit, deadline: self.deadline, between: self.timeouts.between_bytes };
        let (head, body) = response.into_parts();
        let body = self.responses.bound(body, limits, self.meter, permit).ok_or(HttpError::ConnectionTerminated)?;
        let response = http::Response::from_parts(head, body.boxed_unsync());
        Ok((response, Box::new(std::future::ready(Ok(())))))
    }

    /// The whole body: what is sent upstream must be complete, and may have to be sent again.
    async fn collect(&self, headers: &HeaderMap, mut body: WasiBody) -> Result<Bytes, HttpError> {
        let limit = self.limits.request_bytes;
        let too_large = || {
            self.meter.note(Limit::RequestBytes);
            HttpError::RequestBodySize(limit)
        };
        if content_length(headers).is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut collected = BytesMut::new();
        while let Some(frame) = body.frame().await {
            // An error here means that the guest gave its own body up.
            let Ok(data) = frame.map_err(|_| HttpError::Protocol)?.into_data() else {
                continue;
            };
            let size = collected.len().saturating_add(data.len());
            if u64::try_from(size).is_ok_and(|size| size > limit) {
                return Err(too_large());
            }
            collected.extend_from_slice(&data);
        }
        Ok(collected.freeze())
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
