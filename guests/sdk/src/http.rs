//! HTTP without an asynchronous runtime: one request at a time, for the thin level.

#[cfg(target_os = "wasi")]
pub(crate) mod wire;

use std::fmt;

/// Where the Kubernetes API answers: the host's gateway.
pub const KUBERNETES: &str = "kubernetes.default.svc";

/// A request to the Kubernetes API, or to a host that the guest's configuration allows.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// `https` or `http`.
    pub scheme: String,
    /// Host, with a port where it is not the scheme's own.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Names and values. The gateway passes on `accept` and `content-type` only.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// An answer whose body is still to be read.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    #[cfg(target_os = "wasi")]
    body: wire::Incoming,
}

/// Why there is no answer, or only a part of one. Refusals by the gateway are answers with a status code and a
/// Kubernetes `Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The guest's fault: method, path, authority or a header cannot be sent.
    Invalid(&'static str),
    /// The request failed on its way: the text names the `wasi:http` error code. It may have reached the server.
    Failed(String),
    /// The body of the answer broke off.
    Interrupted(String),
    /// This code does not run in a component.
    NoHost,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => write!(f, "the request cannot be sent: invalid {what}"),
            Self::Failed(code) => write!(f, "the request failed: {code}"),
            Self::Interrupted(code) => write!(f, "the answer broke off: {code}"),
            Self::NoHost => f.write_str("requests can be sent from inside a component only"),
        }
    }
}

impl std::error::Error for Error {}

impl Request {
    /// A request to the Kubernetes API without headers and body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            scheme: "https".to_owned(),
            authority: KUBERNETES.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A server-side apply of an object in JSON, with force.
    #[must_use]
    pub fn apply(path: &str, object: impl Into<Vec<u8>>) -> Self {
        let separator = if path.contains('?') { '&' } else { '?' };
        Self::new("PATCH", &format!("{path}{separator}force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(object)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request and waits for status and headers of the answer.
    ///
    /// # Errors
    /// When there is no answer; see [`Error`].
    #[cfg(target_os = "wasi")]
    pub fn send(&self) -> Result<Response, Error> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let exchange = wire::Exchange::start(&self.method, &self.scheme, &self.authority, &self.path, headers)?;
        exchange.write_blocking(&self.body)?;
        let (status, headers, body) = exchange.finish()?.wait_blocking()?;
        Ok(Response { status, headers, body })
    }

    /// Sends the request and waits for status and headers of the answer.
    ///
    /// # Errors
    /// Always: this code does not run in a component.
    #[cfg(not(target_os = "wasi"))]
    pub fn send(&self) -> Result<Response, Error> {
        Err(Error::NoHost)
    }
}

impl Response {
    /// The next part of the body, `None` at its end. Waits for it.
    ///
    /// # Errors
    /// When the body breaks off.
    #[cfg(target_os = "wasi")]
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.body.read_blocking()
    }

    /// The next part of the body, `None` at its end. Waits for it.
    ///
    /// # Errors
    /// Always: this code does not run in a component.
    #[cfg(not(target_os = "wasi"))]
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        Err(Error::NoHost)
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// When the body breaks off.
    pub fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(part) = self.read()? {
            if body.is_empty() {
                body = part;
            } else {
                body.extend_from_slice(&part);
            }
        }
        Ok(body)
    }
}
