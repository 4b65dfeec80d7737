//! Requests to an OpenWhisk API. The host sends them: it decides which hosts may be reached and whose certificates count.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::fqn::QualifiedName;

/// The most bytes of an answer that are read: a description without code is a few KiB.
const MAX_ANSWER: usize = 1 << 20;
/// The most characters of an answer that a message quotes.
const QUOTED: usize = 200;
/// The header by which a receiver knows a repeated call.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One user of one OpenWhisk installation.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    api_host: String,
    /// `Basic ...`; never shown.
    authorization: String,
    namespace: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status code.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer that can be used. The administrator has to look at the target, at `allowedHosts`, or at OpenWhisk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target's address makes no URL.
    #[error("`{0}` is not the address of an API host")]
    Address(String),
    /// No answer, or the answer broke off. Worth another attempt.
    #[error("`{host}` cannot be reached: {cause}")]
    Unreachable {
        /// As the target names it.
        host: String,
        /// What was seen.
        cause: String,
    },
    /// The answer is too long. Worth another attempt, perhaps.
    #[error("the answer of `{host}` breaks off or is longer than {MAX_ANSWER} bytes: {cause}")]
    Answer {
        /// As the target names it.
        host: String,
        /// What was seen.
        cause: String,
    },
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("api_host", &self.api_host).finish_non_exhaustive()
    }
}

impl Connection {
    /// `key` is `user:password`, `namespace` that of names without one.
    #[must_use]
    pub fn new(client: Client, api_host: &str, key: &str, namespace: &str) -> Self {
        Self {
            client,
            api_host: api_host.trim_end_matches('/').to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(key)),
            namespace: namespace.to_owned(),
        }
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn api_host(&self) -> &str {
        &self.api_host
    }

    /// The namespace of names without one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks for the description of an action, without its code.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn action(&self, name: &QualifiedName) -> Result<Reply, Error> {
        self.send(Method::GET, &format!("namespaces/{}?code=false", name.path("actions")), None).await
    }

    /// Asks for the namespaces of the key: the cheapest call that needs one.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn namespaces(&self) -> Result<Reply, Error> {
        self.send(Method::GET, "namespaces", None).await
    }

    /// Calls a trigger or an action, named by its path below `namespaces/`. `key` is the same for repeated calls.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, endpoint: &str, payload: &Value, key: &str) -> Result<Reply, Error> {
        self.send(Method::POST, &format!("namespaces/{endpoint}"), Some((payload, key))).await
    }

    async fn send(&self, method: Method, path: &str, call: Option<(&Value, &str)>) -> Result<Reply, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.api_host))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, "application/json");
        let body = match call {
            Some((payload, key)) => {
                request = request.header(CONTENT_TYPE, "application/json").header(IDEMPOTENCY_KEY, key);
                Body::from(payload.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|_| Error::Address(self.api_host.clone()))?;
        let answer = self.client.send(request).await;
        let answer =
            answer.map_err(|error| Error::Unreachable { host: self.api_host.clone(), cause: chain(&error) })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Error::Answer { host: self.api_host.clone(), cause: error.to_string() })?;
        Ok(Reply { status, body: body.to_bytes() })
    }
}

impl Reply {
    /// The body as JSON, if it is.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// OpenWhisk's own words, or the beginning of what it said instead.
    #[must_use]
    pub fn message(&self) -> String {
        let error = self.json().and_then(|json| json.get("error").and_then(Value::as_str).map(str::to_owned));
        let text = error.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
        let text: String = text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("OpenWhisk answers {}: {}", self.status.as_u16(), text.trim())
    }
}

/// An error with its causes: the outermost alone says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
