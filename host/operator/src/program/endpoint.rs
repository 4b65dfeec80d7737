//! A program's Kubernetes API: plain HTTP/1.1 on a loopback address of its own, for one run.
//!
//! Whoever is on the machine can connect, so each request needs the token that only the program was given. What has none is
//! answered with 401 before anything of it is read but its head, and can neither keep nor fill the places of connections.
//! What has it goes to the guest's gateway, as if it had come over `wasi:http`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use wasm_operator_cluster::gateway::API_AUTHORITY;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::request::{ApiRequest, Refusal, Verb};
use wasm_operator_engine::{OutgoingHttp, Timeouts};

use super::activity::{Activity, UnderWay};
use super::observed::Delivered;
use super::watched;
use crate::outgoing::Outgoing;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Connections at once: a program has one per watch, of which the gateway allows 64, and per request under way, and keeps
/// some for the next request. More wait until one of these has ended.
const MAX_CONNECTIONS: usize = 96;
/// Connections without a request that had the token. A program may open one for each of its objects before it sends the first
/// request. Others' fill their places, and the oldest goes.
const MAX_STRANGERS: usize = 96;
/// How long each of those can keep its place when the next connection needs one. On a busy machine a program takes a while
/// to send the first request of each.
const STRANGERS_TURN: Duration = Duration::from_secs(1);
/// Until the next look whether a place is free: a connection says that it ends a moment before it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long a connection without such a request lives.
const STRANGER_TIME: Duration = Duration::from_secs(5);
/// The head of a request: bytes and headers. kube's have some hundred bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Wait after a failed accept, which most likely means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<http_body_util::Either<Full<Bytes>, Delivered>>;
type Delivery = Response<Delivered>;

/// The endpoint of one run. Dropped, it is gone with its connections.
pub(super) struct Endpoint {
    address: SocketAddr,
    token: String,
    _serving: Serving,
}

impl Endpoint {
    /// Listens on a free port of 127.0.0.1, on that runtime.
    pub(super) fn open(
        runtime: &Handle,
        http: Arc<Outgoing>,
        activity: Arc<Activity>,
        limits: &Limits,
    ) -> io::Result<Self> {
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listen()?)?
        };
        let address = listener.local_addr()?;
        let token = token()?;
        let service = Arc::new(Service {
            token: format!("Bearer {token}").into_bytes(),
            http,
            activity,
            places: Arc::new(Semaphore::new(usize::try_from(limits.requests_in_flight).unwrap_or(MAX_CONNECTIONS))),
            request_bytes: usize::try_from(limits.request_bytes).unwrap_or(usize::MAX),
            request_time: Duration::from_millis(limits.request_milliseconds),
        });
        let serving = Serving(runtime.spawn(serve(listener, service)).abort_handle());
        Ok(Self { address, token, _serving: serving })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What requests must have as bearer token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

fn listen() -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn token() -> io::Result<String> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    // So few bytes come whole.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Ends with whoever holds it.
struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Connection {
    task: Serving,
    since: Instant,
    /// Whether a request on it had the token.
    known: Arc<AtomicBool>,
}

/// Connections that were accepted, the oldest first.
#[derive(Default)]
struct Open {
    connections: VecDeque<Connection>,
    /// Notified when one shows the token, and when one ends.
    changed: Arc<Notify>,
}

impl Open {
    /// Resolves when there is a place for another one.
    async fn place(&mut self) {
        loop {
            self.connections.retain(|connection| !connection.task.0.is_finished());
            let strangers = self.connections.iter().filter(|connection| connection.is_stranger()).count();
            if strangers < MAX_STRANGERS && self.connections.len() - strangers < MAX_CONNECTIONS {
                return;
            }
            let had_its_turn =
                |connection: &Connection| connection.is_stranger() && connection.since.elapsed() >= STRANGERS_TURN;
            let oldest = self.connections.iter().position(had_its_turn);
            match oldest.filter(|_| strangers >= MAX_STRANGERS) {
                Some(oldest) => _ = self.connections.remove(oldest),
                None => _ = timeout(LOOK, self.changed.notified()).await,
            }
        }
    }
}

impl Connection {
    fn is_stranger(&self) -> bool {
        !self.known.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, service: Arc<Service>) {
    let mut open = Open::default();
    loop {
        open.place().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection to a program's endpoint");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let known = Arc::new(AtomicBool::new(false));
        let shown = Shown { known: known.clone(), changed: open.changed.clone() };
        let task = Serving(tokio::spawn(connection(stream, service.clone(), shown)).abort_handle());
        open.connections.push_back(Connection { task, since: Instant::now(), known });
    }
}

/// Whether a connection has shown the token, and who is to know that it has, or that it has ended.
struct Shown {
    known: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Shown {
    fn show(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// Serves one connection. There is no timeout for one that has shown the token: closing an idle one would wake the program.
async fn connection(stream: TcpStream, service: Arc<Service>, shown: Shown) {
    // Events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let (watch, mut watched) = oneshot::channel();
    let shared = Arc::new((shown, Mutex::new(Some(watch))));
    let serving = shared.clone();
    let handle = service_fn(move |request| {
        let (service, shared) = (service.clone(), serving.clone());
        async move {
            let (shown, watch) = &*shared;
            Ok::<_, Infallible>(service.answer(request, shown, watch).await)
        }
    });
    let mut connection = Box::new(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), handle),
    );
    let served = timeout(STRANGER_TIME, select(&mut watched, &mut connection)).await;
    let served = match served {
        Ok(served) => served,
        Err(_) if shared.0.known.load(Ordering::Relaxed) => select(&mut watched, &mut connection).await,
        Err(_) => return,
    };
    let result = match served {
        Either::Left((Ok(watch), _)) => {
            let stream = connection.into_parts().io.into_inner();
            watched::send(stream, watch).await.map_err(|error| error.to_string())
        }
        Either::Left((Err(_), _)) => Ok(()),
        Either::Right((served, _)) => served.map_err(|error| error.to_string()),
    };
    if let Err(error) = result {
        debug!(%error, "a connection to a program's endpoint broke");
    }
}

/// Takes the one watch for which the connection is taken from hyper.
type Handover = Mutex<Option<oneshot::Sender<Delivery>>>;

struct Service {
    /// The value of the header `authorization`.
    token: Vec<u8>,
    http: Arc<Outgoing>,
    activity: Arc<Activity>,
    /// Of requests under way.
    places: Arc<Semaphore>,
    request_bytes: usize,
    request_time: Duration,
}

impl Service {
    /// Does not resolve once the answer was handed over.
    async fn answer(&self, request: Request<Incoming>, shown: &Shown, watch: &Handover) -> Answer {
        let given = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        if !bool::from(given.ct_eq(&self.token)) {
            return unauthorized();
        }
        shown.show();
        let under_way = self.activity.request();
        let knows_chunks = request.version() == Version::HTTP_11;
        let (answer, is_watch) = match self.forward(request, under_way).await {
            Ok(answer) => answer,
            Err(refusal) => return refused(&refusal),
        };
        let lasts = is_watch && knows_chunks && answer.status() == StatusCode::OK;
        let watch = lasts.then(|| watch.lock().take()).flatten();
        if let Some(watch) = watch {
            // Nobody waits for it where the connection ends.
            let _ = watch.send(answer);
            return pending().await;
        }
        answer.map(http_body_util::Either::Right)
    }

    /// The answer, and whether it is to a watch.
    async fn forward(&self, request: Request<Incoming>, under_way: UnderWay) -> Result<(Delivery, bool), Refusal> {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(AUTHORIZATION);
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        // Refused by the gateway if it cannot be parsed, with the same words as for any other guest.
        let is_watch = matches!(
            ApiRequest::parse(parts.method.as_str(), path.as_str()),
            Ok(ApiRequest::Resource(request)) if request.verb == Verb::Watch
        );
        parts.uri = api_uri(path)?;
        let limit = self.request_bytes;
        let too_large =
            || Refusal::too_large(format!("the request's body is larger than `requestBytes` ({limit} bytes)"));
        if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        // Waiting is kinder than refusing: a controller begins with all of its objects at once.
        let place = match timeout(self.request_time, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) | Err(_) => {
                return Err(Refusal::too_many_requests("more than `requestsInFlight` requests have taken too long"));
            }
        };
        let body = timeout(self.request_time, Limited::new(body, self.request_bytes).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(too_large());
            }
            Ok(Err(_)) | Err(_) => return Err(Refusal::bad_request("the request's body did not come whole")),
        };
        let total = self.request_time;
        let timeouts = Timeouts { connect: total, first_byte: total, between_bytes: total, total };
        let sent = self.http.send(Request::from_parts(parts, body), timeouts).await;
        let answer = sent.map_err(|error| Refusal::timeout(format!("the request was not sent: {error:?}")))?;
        self.activity.delivers();
        // The answer to a watch is never whole: the program waits for its events idly.
        let held = (!is_watch).then_some((under_way, Some(place)));
        Ok((answer.map(|body| Delivered::new(body, self.activity.clone(), held)), is_watch))
    }
}

fn api_uri(path: PathAndQuery) -> Result<Uri, Refusal> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(Authority::from_static(API_AUTHORITY));
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| Refusal::bad_request("the request's target is no path"))
}

fn unauthorized() -> Answer {
    const STATUS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the token of this program's run is missing","reason":"Unauthorized","code":401}"#;
    let mut answer = json(StatusCode::UNAUTHORIZED, Bytes::from_static(STATUS));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    json(StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::BAD_GATEWAY), refusal.to_status().into())
}

fn json(code: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(http_body_util::Either::Left(Full::new(body)));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
