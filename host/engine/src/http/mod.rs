//! A guest's HTTP. Outgoing: the interface that the gateway implements, and what the engine adds on both sides of it.
//! Incoming: the answers of a guest that serves requests.
//!
//! The engine bounds number, size and time of requests; the handler decides what may be sent where and sends it.

mod body;
mod error;
mod hooks;
mod serve;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::error::HttpError;
pub(crate) use self::error::error_code;
pub(crate) use self::hooks::{Hooks, HttpLimits};
pub(crate) use self::serve::Answering;
pub use self::serve::{Answer, ServeLimits};

/// A response body. It is read at the guest's pace; the engine bounds its size and time.
pub type ResponseBody = UnsyncBoxBody<Bytes, HttpError>;

/// Sends the requests of one guest.
pub trait OutgoingHttp: Send + Sync + 'static {
    /// Sends one request, whose URI has scheme, authority and path. Every header and the authority are the guest's
    /// unchecked words. Dropping the future or the body gives the request up.
    fn send(
        &self,
        request: http::Request<Bytes>,
        timeouts: Timeouts,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, HttpError>>;
}

/// How long a request may take: the guest's wishes, never above the ceiling `limits.requestMilliseconds`. The engine
/// enforces all but `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until the response's head is there.
    pub first_byte: Duration,
    /// Between two frames of the response's body.
    pub between_bytes: Duration,
    /// The ceiling, from the guest's call to the last byte of the response.
    pub total: Duration,
}
