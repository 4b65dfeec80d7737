//! A place between host and API server where single requests can be seen and held up: the writes of one guest are counted,
//! and something happens after one of them. Plain HTTP towards the host; who needs TLS as it is takes [`Proxy`].
//!
//! [`Proxy`]: crate::Proxy

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::{Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// More than the API server takes.
const MOST_BODY_BYTES: usize = 8 << 20;
/// Headers that belong to one connection.
const HOP_BY_HOP: [header::HeaderName; 5] =
    [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::TE];

type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What happens after a write that the API server has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The answer is withheld until whoever waits for it gives up; later requests pass.
    Withhold,
    /// The answer is withheld, and so is every later request of the guest until [`Crossing::pass`].
    Freeze,
    /// The connection is cut in place of the answer; later requests pass.
    Cut,
}

/// A write of the guest that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write(pub(crate) String);

#[derive(Debug)]
struct State {
    user: String,
    writes: Vec<Write>,
    in_flight: usize,
    armed: Option<(usize, Then)>,
}

/// The crossing. It ends with this value.
#[derive(Debug)]
pub(crate) struct Crossing {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    upstream: Client,
    state: Mutex<State>,
    frozen: watch::Sender<bool>,
    fired: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Crossing {
    /// Before the API server of this kubeconfig. Callers bring their own credentials.
    pub(crate) async fn start(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        // Watches are quiet for as long as nothing happens.
        config.read_timeout = None;
        let state = State { user: String::new(), writes: Vec::new(), in_flight: 0, armed: None };
        let shared = Arc::new(Shared {
            upstream: Client::try_from(config)?,
            state: Mutex::new(state),
            frozen: watch::channel(false).0,
            fired: watch::channel(false).0,
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts the writes of this user from now on.
    pub(crate) fn watch_user(&self, user: &str) {
        user.clone_into(&mut self.shared.state.lock().user);
    }

    /// Has something happen after the write of this number, counted from 1. Once.
    pub(crate) fn arm(&self, after: usize, then: Then) {
        self.shared.state.lock().armed = Some((after, then));
    }

    /// Returns when that has happened.
    pub(crate) async fn fired(&self) {
        // The sender lives as long as we do.
        let _ = self.shared.fired.subscribe().wait_for(|fired| *fired).await;
    }

    pub(crate) fn has_fired(&self) -> bool {
        *self.shared.fired.borrow()
    }

    /// Lets frozen requests through.
    pub(crate) fn pass(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// The guest's writes so far.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.shared.state.lock().writes.clone()
    }

    /// Requests of the guest that are under way, watches included.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.state.lock().in_flight
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ended with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { shared.handle(request).await }
            });
            // An error is a connection that the host or we have cut.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Counts a request as under way as long as it lives.
struct InFlight<'a>(&'a Mutex<State>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

impl Shared {
    /// An error cuts the connection.
    async fn handle(&self, request: Request<Incoming>) -> io::Result<Response<AnyBody>> {
        let own = self.is_own(&request);
        let write = own.then(|| write_of(&request)).flatten();
        let _in_flight = own.then(|| {
            self.state.lock().in_flight += 1;
            InFlight(&self.state)
        });
        if own {
            let _ = self.frozen.subscribe().wait_for(|frozen| !*frozen).await;
        }
        let response = self.forward(request).await?;
        let Some(write) = write.filter(|_| response.status().is_success()) else { return Ok(response) };
        let then = {
            let mut state = self.state.lock();
            state.writes.push(write);
            let count = state.writes.len();
            let due = state.armed.take_if(|(after, _)| *after == count);
            due.map(|(_, then)| {
                // Under the lock: no later write gets its answer before this takes effect.
                if then == Then::Freeze {
                    self.frozen.send_replace(true);
                }
                then
            })
        };
        let Some(then) = then else { return Ok(response) };
        self.fired.send_replace(true);
        match then {
            Then::Cut => Err(io::Error::other("cut after a write")),
            // Dropped when the host closes the connection.
            Then::Withhold | Then::Freeze => std::future::pending().await,
        }
    }

    /// Whether it is the guest's own, and not a review of its rights that the host sends in its name.
    fn is_own(&self, request: &Request<Incoming>) -> bool {
        let user = request.headers().get("impersonate-user").and_then(|user| user.to_str().ok());
        let review = request.uri().path().rsplit('/').next().is_some_and(|plural| plural.starts_with("selfsubject"));
        !review && user.is_some_and(|user| user == self.state.lock().user)
    }

    async fn forward(&self, request: Request<Incoming>) -> io::Result<Response<AnyBody>> {
        let (mut parts, body) = request.into_parts();
        let body = Limited::new(body, MOST_BODY_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
        for name in HOP_BY_HOP {
            parts.headers.remove(name);
        }
        let request = Request::from_parts(parts, Body::from(body.to_vec()));
        let response = match self.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                let text = Bytes::from(format!("the API server cannot be reached: {error}"));
                let body = Full::new(text).map_err(|never: Infallible| match never {}).boxed_unsync();
                return Response::builder().status(502).body(body).map_err(io::Error::other);
            }
        };
        let (mut parts, body) = response.into_parts();
        for name in HOP_BY_HOP {
            parts.headers.remove(name);
        }
        Ok(Response::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
    }
}

/// The line of a request that changes something.
fn write_of<T>(request: &Request<T>) -> Option<Write> {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    let dry = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("dryRun=")));
    (changes && !dry).then(|| Write(format!("{} {}", request.method(), request.uri().path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(method: Method, uri: &str) -> Option<String> {
        write_of(&Request::builder().method(method).uri(uri).body(()).unwrap()).map(|write| write.0)
    }

    #[test]
    fn reads_and_dry_runs_are_no_writes() {
        assert_eq!(write(Method::GET, "/api/v1/pods"), None);
        assert_eq!(write(Method::PATCH, "/api/v1/x?force=true&dryRun=All"), None);
        assert_eq!(write(Method::PATCH, "/api/v1/x?force=true").as_deref(), Some("PATCH /api/v1/x"));
        assert_eq!(write(Method::DELETE, "/api/v1/x").as_deref(), Some("DELETE /api/v1/x"));
    }
}
