//! Hosts other than the API server: only those that the guest's configuration lists, and only at addresses that were
//! checked. A name is resolved once, every address is judged, and the connection goes to the judged address, so that
//! a name which changes its mind in between leads nowhere else. No proxy from the environment, no redirects, no pool.

mod address;
mod authorities;
mod closed;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use wasm_operator_core::allowed_host::{Scheme, unmapped};
use wasm_operator_core::headers::OF_CONNECTION;

use super::body::StreamOptions;
use super::error::SendError;
use super::forward::chain;
use super::{Body, GuestAccess};

pub use authorities::{Authorities, InvalidAuthorities};
pub use closed::ClosedAddresses;

/// Sends requests to other hosts.
pub(crate) struct Outbound {
    tls: TlsConnector,
    closed: ClosedAddresses,
}

/// Where a request goes.
struct Destination {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Outbound {
    /// `closed` are addresses that no guest reaches, whatever is listed.
    pub(crate) fn new(closed: ClosedAddresses) -> Self {
        Self { tls: authorities::connector(authorities::public()), closed }
    }

    pub(crate) async fn send(
        &self,
        access: &GuestAccess,
        in_flight: &Arc<Semaphore>,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> Result<Response<Body>, SendError> {
        let destination = Destination::of(&request)?;
        if !access
            .allowed_hosts
            .iter()
            .any(|allowed| allowed.admits(destination.scheme, &destination.host, destination.port))
        {
            return Err(SendError::Denied { authority: destination.to_text() });
        }
        let limit = access.limits.request_bytes;
        if request.body().len() as u64 > limit {
            return Err(SendError::RequestTooLarge { limit });
        }
        let permit = in_flight
            .clone()
            .try_acquire_owned()
            .map_err(|_| SendError::TooManyInFlight { limit: access.limits.requests_in_flight })?;
        let stream = self.connect(access, &destination).await?;
        let request = rewrite(request, &destination)?;
        let answer = match destination.scheme {
            Scheme::Http => exchange(stream, request, &destination).await?,
            Scheme::Https => {
                let tls = |cause: String| SendError::Tls { host: destination.authority(), cause };
                let name =
                    ServerName::try_from(destination.bare_host().to_owned()).map_err(|error| tls(error.to_string()))?;
                let tls_of_guest = access.authorities.as_ref().map_or(&self.tls, |authorities| &authorities.tls);
                let stream = tls_of_guest.connect(name, stream).await.map_err(|error| tls(chain(&error)))?;
                exchange(stream, request, &destination).await?
            }
        };
        let (mut parts, body) = answer.into_parts();
        drop_headers(&mut parts.headers);
        let (limit, deadline) = (access.limits.response_bytes, Some(deadline));
        let options = StreamOptions { limit, deadline, strip_managed_fields: false };
        Ok(Response::from_parts(parts, Body::stream(body, options).hold(vec![permit])))
    }

    async fn connect(&self, access: &GuestAccess, destination: &Destination) -> Result<TcpStream, SendError> {
        let host = destination.bare_host();
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, destination.port))
            .await
            .map_err(|_| SendError::Dns(host.to_owned()))?
            .collect();
        let mut denied = None;
        let mut failed = None;
        for address in addresses {
            let ip = unmapped(address.ip());
            let listed = access.allowed_hosts.iter().any(|allowed| allowed.lists_address(ip, destination.port));
            if self.closed.contains(ip, address.port()) || !listed && !address::is_public(ip) {
                denied = Some(ip);
                continue;
            }
            // To the very address that was judged.
            match TcpStream::connect(SocketAddr::new(ip, address.port())).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(match (failed, denied) {
            (Some(error), _) => SendError::Connect { host: destination.authority(), cause: error.to_string() },
            (None, Some(address)) => SendError::DeniedAddress { host: host.to_owned(), address },
            (None, None) => SendError::Dns(host.to_owned()),
        })
    }
}

impl Destination {
    fn of(request: &Request<Bytes>) -> Result<Self, SendError> {
        let uri = request.uri();
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(SendError::Malformed("the scheme is not `http` or `https`")),
        };
        let authority = uri.authority().ok_or(SendError::Malformed("there is no authority"))?;
        // `user@host` would be read as `host` here and as something else elsewhere.
        if authority.as_str().contains('@') {
            return Err(SendError::Malformed("the authority holds user information"));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() != authority.host().len() => {
                return Err(SendError::Malformed("the port is not a number"));
            }
            None => scheme.default_port(),
        };
        Ok(Self { scheme, host, port })
    }

    /// Without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    fn to_text(&self) -> String {
        let text = format!("{}://{}", self.scheme.as_str(), self.authority());
        text.chars().take(128).collect()
    }
}

/// Path and query only, the host's own `host` header, and what belongs to no connection.
fn rewrite(request: Request<Bytes>, destination: &Destination) -> Result<Request<Full<Bytes>>, SendError> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = path.parse().map_err(|_| SendError::Malformed("the path is not a path"))?;
    parts.version = http::Version::HTTP_11;
    drop_headers(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    let host =
        HeaderValue::from_str(&destination.authority()).map_err(|_| SendError::Malformed("the host is not a host"))?;
    parts.headers.insert(header::HOST, host);
    Ok(Request::from_parts(parts, Full::new(body)))
}

fn drop_headers(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    // `Forwarded` is for proxies, and only the host may set it.
    for name in OF_CONNECTION.into_iter().chain(["forwarded"]) {
        headers.remove(name);
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    destination: &Destination,
) -> Result<Response<hyper::body::Incoming>, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| SendError::Broken { host: destination.authority(), cause: chain(&error) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer's body, or when the guest drops it.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to another host broke");
        }
    });
    sender.send_request(request).await.map_err(broken)
}

#[cfg(test)]
mod tests;
