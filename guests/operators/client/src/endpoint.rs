//! `kube::Client` over a TCP connection to the host's endpoint.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use hyper_util::client::legacy::{self, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::Body;
use tokio::net::TcpStream;
use tower::Service;

use crate::{Error, SERVICE_HOST, SERVICE_PORT, SERVICE_TOKEN};

/// Connections that are kept for the next request. Watches have connections of their own while they last.
const IDLE_CONNECTIONS: usize = 2;

pub(crate) fn client() -> Result<kube::Client, Error> {
    let host: IpAddr = variable(SERVICE_HOST)?.parse().map_err(|_| Error::Environment(SERVICE_HOST))?;
    let port = variable(SERVICE_PORT)?.parse().map_err(|_| Error::Environment(SERVICE_PORT))?;
    let address = SocketAddr::new(host, port);
    let authority = Authority::try_from(address.to_string()).map_err(|_| Error::Environment(SERVICE_HOST))?;
    let token = HeaderValue::try_from(format!("Bearer {}", variable(SERVICE_TOKEN)?));
    let mut token = token.map_err(|_| Error::Environment(SERVICE_TOKEN))?;
    token.set_sensitive(true);
    let client = legacy::Client::builder(TokioExecutor::new())
        // Nagle's algorithm cannot be switched off in wasi:sockets 0.2: a head and a body in two writes take 40 ms.
        .http1_writev(false)
        // A timer of the pool would wake the guest for nothing.
        .pool_idle_timeout(None)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(Connector(address));
    Ok(kube::Client::new(Endpoint { client, authority, token }, "default"))
}

fn variable(name: &'static str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| Error::Environment(name))
}

/// Connects to one address, whatever is asked for.
#[derive(Clone)]
struct Connector(SocketAddr);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move { TcpStream::connect(address).await.map(TokioIo::new) })
    }
}

/// Sends each request to the endpoint, with the token.
struct Endpoint {
    client: legacy::Client<Connector, Body>,
    authority: Authority,
    token: HeaderValue,
}

impl Service<Request<Body>> for Endpoint {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = legacy::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.token.clone());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        self.client.request(request)
    }
}
