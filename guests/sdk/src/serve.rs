//! Serving HTTP behind the host's front door.
//!
//! ```no_run
//! use wasm_operator_sdk::serve::{Bytes, Caller, http};
//! # use wasm_operator_sdk::{Action, Config, Controller, IntoGuest};
//! # use k8s_openapi::api::core::v1::ConfigMap;
//! # fn setup() -> impl IntoGuest {
//! #     Controller::<ConfigMap>::new(Config::default()).run(
//! #         |_, _| async { Ok::<_, String>(Action::await_change()) }, |_, _, _| Action::retry(), std::sync::Arc::new(()))
//! # }
//!
//! async fn handle(request: http::Request<Bytes>) -> http::Response<Bytes> {
//!     let name = Caller::of(&request).map_or_else(|| "nobody".to_owned(), |caller| caller.user);
//!     http::Response::new(format!("Greetings, {name}").into())
//! }
//!
//! wasm_operator_sdk::main!(setup, serve = handle);
//! # fn main() {}
//! ```
//!
//! The host authenticates and authorises the caller, wakes the guest, and calls `handle`. What to know:
//!
//! - The path is the guest's own: `/guests/hello/a?b` of the front door arrives as `/a?b`. Headers with credentials, and
//!   those of the connection, do not arrive.
//! - The body is complete when `handle` is called; the host bounds it.
//! - Requests run beside reconciles and beside each other, each in an instance of its own: what one waits for, another
//!   may bring about. As with `reconcile`, nothing is kept between two calls.
//! - A request may be given up at any time: by its deadline, by its caller, by a host that stops. What `handle` changes in
//!   the cluster must bear that, and must bear the same request twice.
//! - [`request`](crate::request) is `None`; [`REQUEST_ID`] identifies the request in the host's log.

pub use bytes::Bytes;
pub use http;

/// The caller's name: a header that only the host can set.
pub const USER: &str = "x-wasm-operator-user";
/// The caller's uid, absent if it has none: a header that only the host can set.
pub const UID: &str = "x-wasm-operator-uid";
/// A group of the caller, once per group: a header that only the host can set.
pub const GROUP: &str = "x-wasm-operator-group";
/// Identifies the request in the host's log: a header that only the host can set.
pub const REQUEST_ID: &str = "x-wasm-operator-request-id";

/// Who sent a request, as the API server authenticated it, or as the configuration says of a listener without tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name, such as `system:serviceaccount:default:client`.
    pub user: String,
    /// The uid; empty if there is none.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
}

impl Caller {
    /// Reads the caller from a request that `handle` was given. `None`: the host named none.
    #[must_use]
    pub fn of<B>(request: &http::Request<B>) -> Option<Self> {
        let text = |value: &http::HeaderValue| String::from_utf8(value.as_bytes().to_vec()).ok();
        let headers = request.headers();
        let user = headers.get(USER).and_then(text).filter(|user| !user.is_empty())?;
        let uid = headers.get(UID).and_then(text).unwrap_or_default();
        Some(Self { user, uid, groups: headers.get_all(GROUP).iter().filter_map(text).collect() })
    }
}

/// Holds `handle` to its type where no component is built.
#[doc(hidden)]
pub fn check<H, F>(_: H)
where
    H: FnOnce(http::Request<Bytes>) -> F,
    F: Future<Output = http::Response<Bytes>>,
{
}

#[cfg(target_os = "wasi")]
pub use component::serve;
#[cfg(target_os = "wasi")]
mod component {
    use bytes::{Bytes, BytesMut};
    use http::header::CONTENT_LENGTH;
    use http::{HeaderValue, Method, Request, Response, StatusCode};
    use wasip2::http::types::{
        ErrorCode, Fields, IncomingRequest, Method as WasiMethod, OutgoingBody, OutgoingResponse, ResponseOutparam,
    };
    use wasip2::io::streams::{InputStream, OutputStream, StreamError};

    use crate::IntoGuest;
    use crate::guest::guest;
    use crate::reactor::Registration;
    use crate::runtime;

    /// How much is read or written at once: 64 KiB, what the host hands over at most.
    const PART: u64 = 64 << 10;

    /// The export `wasi:http/incoming-handler`.
    #[doc(hidden)]
    pub fn serve<G, H, F>(setup: fn() -> G, handle: H, request: IncomingRequest, answer: ResponseOutparam)
    where
        G: IntoGuest,
        H: FnOnce(Request<Bytes>) -> F,
        F: Future<Output = Response<Bytes>>,
    {
        // Logging and whatever else the set-up prepares.
        if let Err(error) = guest(setup) {
            return ResponseOutparam::set(answer, Err(ErrorCode::InternalError(Some(error))));
        }
        runtime::block_on(async {
            match read(request).await {
                Ok(request) => {
                    let is_head = request.method() == Method::HEAD;
                    write(handle(request).await, is_head, answer).await;
                }
                Err(code) => ResponseOutparam::set(answer, Err(code)),
            }
        });
    }

    async fn read(incoming: IncomingRequest) -> Result<Request<Bytes>, ErrorCode> {
        let method = match incoming.method() {
            WasiMethod::Get => Method::GET,
            WasiMethod::Head => Method::HEAD,
            WasiMethod::Post => Method::POST,
            WasiMethod::Put => Method::PUT,
            WasiMethod::Delete => Method::DELETE,
            WasiMethod::Connect => Method::CONNECT,
            WasiMethod::Options => Method::OPTIONS,
            WasiMethod::Trace => Method::TRACE,
            WasiMethod::Patch => Method::PATCH,
            WasiMethod::Other(name) => {
                Method::from_bytes(name.as_bytes()).map_err(|_| ErrorCode::HttpRequestMethodInvalid)?
            }
        };
        let path = incoming.path_with_query().unwrap_or_else(|| "/".to_owned());
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in incoming.headers().entries() {
            request = request.header(name, value);
        }
        let body = incoming.consume().map_err(|()| ErrorCode::HttpProtocolError)?;
        let bytes = {
            let stream = body.stream().map_err(|()| ErrorCode::HttpProtocolError)?;
            collect(&stream).await?
        };
        request.body(bytes).map_err(|_| ErrorCode::HttpRequestUriInvalid)
    }

    async fn collect(stream: &InputStream) -> Result<Bytes, ErrorCode> {
        let mut body = BytesMut::new();
        loop {
            match stream.read(PART) {
                Ok(part) if part.is_empty() => Registration::new(stream.subscribe()).wait().await,
                Ok(part) => body.extend_from_slice(&part),
                Err(StreamError::Closed) => return Ok(body.freeze()),
                Err(StreamError::LastOperationFailed(_)) => return Err(ErrorCode::ConnectionTerminated),
            }
        }
    }

    async fn write(response: Response<Bytes>, is_head: bool, answer: ResponseOutparam) {
        let (mut parts, body) = response.into_parts();
        // A length that is not the body's would break the answer off. A HEAD names that of the body that it leaves out.
        if !is_head {
            parts.headers.remove(CONTENT_LENGTH);
            let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            if !bodiless && !parts.status.is_informational() {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
        }
        let fields = Fields::new();
        for (name, value) in &parts.headers {
            if fields.append(name.as_str(), value.as_bytes()).is_err() {
                tracing::warn!("the header `{name}` is left out of the answer: the host does not take it");
            }
        }
        let outgoing = OutgoingResponse::new(fields);
        if outgoing.set_status_code(parts.status.as_u16()).is_err() {
            return ResponseOutparam::set(answer, Err(ErrorCode::HttpProtocolError));
        }
        let Ok(outgoing_body) = outgoing.body() else {
            return ResponseOutparam::set(answer, Err(ErrorCode::HttpProtocolError));
        };
        ResponseOutparam::set(answer, Ok(outgoing));
        if !is_head && let Ok(stream) = outgoing_body.write() {
            send(&stream, &body).await;
        }
        // An error means that the caller is gone.
        let _ = OutgoingBody::finish(outgoing_body, None);
    }

    async fn send(stream: &OutputStream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match stream.check_write() {
                Ok(0) => Registration::new(stream.subscribe()).wait().await,
                Ok(permit) => {
                    let most = usize::try_from(permit.min(PART)).unwrap_or(usize::MAX);
                    let (now, later) = bytes.split_at(bytes.len().min(most));
                    if stream.write(now).is_err() {
                        return;
                    }
                    bytes = later;
                }
                // Nobody reads the answer any more.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_from_the_headers_of_the_host() {
        let request = http::Request::builder()
            .header(USER, "Jürgen")
            .header(UID, "7")
            .header(GROUP, "one")
            .header(GROUP, "two")
            .body(())
            .unwrap();
        let caller = Caller { user: "Jürgen".into(), uid: "7".into(), groups: vec!["one".into(), "two".into()] };
        assert_eq!(Caller::of(&request), Some(caller));
    }

    #[test]
    fn a_request_without_a_user_has_no_caller() {
        assert_eq!(Caller::of(&http::Request::builder().header(GROUP, "one").body(()).unwrap()), None);
        assert_eq!(Caller::of(&http::Request::builder().header(USER, "").body(()).unwrap()), None);
        assert_eq!(Caller::of(&http::Request::builder().header(USER, &b"\xff"[..]).body(()).unwrap()), None);
    }
}
