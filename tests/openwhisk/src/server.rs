//! The server: HTTP/1.1 on loopback, plain or over TLS.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::action::Action;
use crate::answer::Answer;
use crate::model::{Asked, Model};
use crate::record::Request;
use crate::script::{Behaviour, Script};
use crate::tls;

/// More than OpenWhisk takes, so that it can say so.
const MOST_BODY_BYTES: usize = 4 << 20;
/// What is sent at once of a huge answer.
const CHUNK_BYTES: usize = 64 << 10;
/// As long as the harness waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

type Body = BoxBody<Bytes, io::Error>;

/// A running server. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct OpenWhisk {
    address: SocketAddr,
    authority: Option<Arc<str>>,
    shared: Arc<Shared>,
    _ends: Arc<Ends>,
}

#[derive(Debug)]
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Shared {
    model: Mutex<Model>,
    script: Mutex<Script>,
    requests: Mutex<Vec<Request>>,
    /// Counts changes of `requests`.
    changes: watch::Sender<u64>,
}

impl OpenWhisk {
    /// Plain HTTP on a free port of loopback.
    pub async fn start() -> Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), false).await
    }

    /// TLS, with the certificate of an [`authority`](Self::authority) of its own.
    pub async fn start_tls() -> Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), true).await
    }

    /// On this address.
    pub async fn listen(address: SocketAddr, over_tls: bool) -> Result<Self> {
        let (acceptor, authority) = over_tls.then(tls::acceptor).transpose()?.unzip();
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let shared = Arc::new(Shared {
            model: Mutex::default(),
            script: Mutex::default(),
            requests: Mutex::default(),
            changes: watch::channel(0).0,
        });
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, acceptor, shared.clone()));
        let ends = Arc::new(Ends(accepting.abort_handle()));
        Ok(Self { address, authority: authority.map(Into::into), shared, _ends: ends })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>` or `https://...`, as `allowedHosts` and an API host have it.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of its authority as PEM, if it speaks TLS.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Adds a namespace, or changes its credentials (`user:password`).
    pub fn namespace(&self, name: &str, credentials: &str) {
        self.shared.model.lock().namespace(name, credentials);
    }

    /// Adds or replaces an action, by `/namespace/[package/]name` of a namespace that exists.
    pub fn action(&self, name: &str, action: Action) -> Result<()> {
        self.known(name, self.shared.model.lock().action(name, Some(action)))
    }

    /// Removes an action.
    pub fn remove_action(&self, name: &str) -> Result<()> {
        self.known(name, self.shared.model.lock().action(name, None))
    }

    /// Adds a trigger with an active rule, by `/namespace/name` of a namespace that exists.
    pub fn trigger(&self, name: &str) -> Result<()> {
        self.known(name, self.shared.model.lock().trigger(name, true))
    }

    /// Adds a trigger without a rule: it takes what it gets (204) and makes no activation.
    pub fn trigger_without_rule(&self, name: &str) -> Result<()> {
        self.known(name, self.shared.model.lock().trigger(name, false))
    }

    fn known(&self, name: &str, known: bool) -> Result<()> {
        anyhow::ensure!(known, "`{name}` is not `/namespace/name` of a namespace that was added before");
        Ok(())
    }

    /// What is done with the next requests of this line, such as `POST /api/v1/namespaces/guest/triggers/done`; later
    /// ones are answered honestly.
    pub fn script(&self, line: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.script.lock().next(line, behaviours);
    }

    /// What is done with all requests of this line from now on.
    pub fn always(&self, line: &str, behaviour: Behaviour) {
        self.shared.script.lock().always(line, behaviour);
    }

    /// Everything that arrived so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().clone()
    }

    /// Follows [`requests`](Self::requests): changes when one arrives and when its answer is decided.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The first so many requests that pass; waits for them.
    pub async fn wait_for(&self, count: usize, what: &str, filter: impl Fn(&Request) -> bool) -> Result<Vec<Request>> {
        let mut changes = self.changes();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Seen before the requests are read, so that one that arrives in between wakes us.
            changes.borrow_and_update();
            let all = self.requests();
            let mut found: Vec<Request> = all.iter().filter(|request| filter(request)).cloned().collect();
            if found.len() >= count {
                found.truncate(count);
                return Ok(found);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                let seen: Vec<String> =
                    all.iter().map(|request| format!("{} {:?}", request.line(), request.status)).collect();
                bail!("not within {} s: {what}: {} of {count}; seen: {seen:?}", PATIENCE.as_secs(), found.len());
            }
        }
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Dropped, and so ended, with this task.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(stream, acceptor.clone(), shared.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => serve(stream, shared).await,
        // A client that does not trust us is no fault of ours.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { shared.handle(request).await }
    });
    // An error is a connection that a client or the script has cut.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    /// An error cuts the connection.
    async fn handle(&self, request: http::Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MOST_BODY_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
        let request = Request {
            at: Instant::now(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            status: None,
            activation: None,
        };
        let mut behaviour = self.script.lock().take(&request.line());
        let index = self.record(request.clone());
        while let Behaviour::After(delay, then) = behaviour {
            tokio::time::sleep(delay).await;
            behaviour = *then;
        }
        match behaviour {
            Behaviour::Honest | Behaviour::After(..) => {
                let answer = self.ask(index, &request);
                self.decide(index, answer.status);
                Ok(response(&answer)?)
            }
            Behaviour::Status(status) => {
                self.decide(index, status);
                response(&Answer::of_status(status))
            }
            Behaviour::Answer { status, headers, body } => {
                self.decide(index, status);
                let mut response = builder(status).body(full(body)).map_err(io::Error::other)?;
                for (name, value) in headers {
                    let name: HeaderName = name.parse().map_err(io::Error::other)?;
                    response.headers_mut().append(name, value.parse().map_err(io::Error::other)?);
                }
                Ok(response)
            }
            Behaviour::Garbage => {
                self.decide(index, 200);
                let page = "<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>";
                let html = HeaderValue::from_static("text/html");
                builder(200).header(header::CONTENT_TYPE, html).body(full(page.to_owned())).map_err(io::Error::other)
            }
            Behaviour::Huge(bytes) => {
                self.decide(index, 200);
                builder(200).header(header::CONTENT_TYPE, JSON).body(huge(bytes)).map_err(io::Error::other)
            }
            Behaviour::Half => {
                let answer = self.ask(index, &request);
                self.decide(index, answer.status);
                let text = text_of(&answer);
                let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
                let parts = [Ok(Frame::data(Bytes::from(half))), Err(io::Error::other("cut by the script"))];
                let body = StreamBody::new(stream::iter(parts)).boxed();
                builder(answer.status).header(header::CONTENT_TYPE, JSON).body(body).map_err(io::Error::other)
            }
            Behaviour::Cut => Err(io::Error::other("cut by the script")),
            Behaviour::Lost => {
                self.ask(index, &request);
                Err(io::Error::other("cut by the script"))
            }
            Behaviour::Silent => std::future::pending().await,
        }
    }

    fn ask(&self, index: usize, request: &Request) -> Answer {
        let authorization = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Request { method, path, query, body, .. } = request;
        let answer = self.model.lock().answer(Asked { method, path, query, authorization, body });
        let activation = answer.headers.first().map(|(_, id)| id.clone());
        if let Some(recorded) = self.requests.lock().get_mut(index) {
            recorded.activation = activation;
        }
        self.changes.send_modify(|count| *count += 1);
        answer
    }

    fn record(&self, request: Request) -> usize {
        let mut requests = self.requests.lock();
        requests.push(request);
        self.changes.send_modify(|count| *count += 1);
        requests.len() - 1
    }

    fn decide(&self, index: usize, status: u16) {
        if let Some(request) = self.requests.lock().get_mut(index) {
            request.status = Some(status);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn builder(status: u16) -> http::response::Builder {
    Response::builder().status(status)
}

fn text_of(answer: &Answer) -> String {
    answer.body.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn response(answer: &Answer) -> io::Result<Response<Body>> {
    let mut builder = builder(answer.status);
    for (name, value) in &answer.headers {
        builder = builder.header(*name, value);
    }
    if answer.body.is_some() {
        builder = builder.header(header::CONTENT_TYPE, JSON);
    }
    builder.body(full(text_of(answer))).map_err(io::Error::other)
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed()
}

/// An action whose code has at least so many bytes, made while it is sent.
fn huge(bytes: u64) -> Body {
    let filler = Bytes::from(vec![b'x'; CHUNK_BYTES]);
    let chunks = usize::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).unwrap_or(usize::MAX);
    let start = Bytes::from_static(br#"{"namespace":"guest","name":"huge","exec":{"kind":"nodejs:6","code":""#);
    let end = Bytes::from_static(br#""},"annotations":[],"parameters":[]}"#);
    let parts = std::iter::once(start).chain(std::iter::repeat_n(filler, chunks)).chain(std::iter::once(end));
    StreamBody::new(stream::iter(parts.map(|part| Ok(Frame::data(part))))).boxed()
}
