//! Requests to the API server in a guest's name.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response};
use tokio::time::{Instant, timeout_at};
use wasm_operator_core::request::Refusal;

use super::identity::IMPERSONATE_USER;
use super::metrics::{DurationLabels, RequestLabels};
use super::retry::{Attempt, MAX_ATTEMPTS, delay};
use super::{Current, Shared};

/// A request as it goes upstream. Everything in it was made by the host.
pub(crate) struct Upstream {
    pub(crate) method: Method,
    pub(crate) path_and_query: String,
    pub(crate) accept: HeaderValue,
    /// None without a body.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
}

/// What came back.
pub(crate) struct Forwarded {
    pub(crate) result: Result<Response<kube::client::Body>, Unanswered>,
    /// An attempt may have been carried out without an answer that says so.
    pub(crate) outcome_open: bool,
}

/// No answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    Timeout,
    NoConnection(String),
    Broken(String),
}

impl Unanswered {
    pub(crate) fn to_refusal(&self, changes: bool) -> Refusal {
        let open = if changes { "; the outcome is unknown, read again" } else { "" };
        match self {
            Self::Timeout => Refusal::timeout(format!("the API server did not answer in time{open}")),
            Self::NoConnection(cause) => Refusal::timeout(format!("no connection to the API server: {cause}")),
            Self::Broken(cause) => Refusal::timeout(format!("the connection to the API server broke: {cause}{open}")),
        }
    }
}

impl Shared {
    /// Sends until there is an answer that may not or need not be tried again, or no time is left.
    pub(crate) async fn forward(
        &self,
        current: &Current,
        upstream: &Upstream,
        is_safe: impl Fn() -> bool,
        deadline: Instant,
    ) -> Forwarded {
        let mut outcome_open = false;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let result = self.attempt(current, upstream, deadline).await;
            let attempt = match &result {
                Ok(answer) => Attempt::of_answer(answer.status(), answer.headers()),
                Err(Unanswered::NoConnection(_)) => Attempt::NotSent,
                Err(Unanswered::Timeout | Unanswered::Broken(_)) => Attempt::Lost,
            };
            outcome_open |= attempt.leaves_outcome_open();
            let wait_until = Instant::now() + delay(attempts, result.as_ref().ok().map(Response::headers));
            if attempts >= MAX_ATTEMPTS || wait_until >= deadline || !attempt.may_resend(&is_safe) {
                return Forwarded { result, outcome_open };
            }
            // The answer's body is dropped first: it holds the connection.
            drop(result);
            tokio::time::sleep_until(wait_until).await;
        }
    }

    async fn attempt(
        &self,
        current: &Current,
        upstream: &Upstream,
        deadline: Instant,
    ) -> Result<Response<kube::client::Body>, Unanswered> {
        let mut request = http::Request::new(kube::client::Body::from(upstream.body.clone()));
        *request.method_mut() = upstream.method.clone();
        *request.uri_mut() =
            upstream.path_and_query.parse().map_err(|error| Unanswered::NoConnection(format!("not a URI: {error}")))?;
        *request.headers_mut() = headers(current, upstream);
        let started = Instant::now();
        let answer = timeout_at(deadline, self.client.send(request)).await;
        let method = metric_method(&upstream.method);
        let host = &self.options.api_server;
        self.metrics
            .durations
            .get_or_create(&DurationLabels { verb: method, host: host.clone() })
            .observe(started.elapsed().as_secs_f64());
        let code = match &answer {
            Ok(Ok(answer)) => answer.status().as_str().to_owned(),
            _ => "<error>".to_owned(),
        };
        self.metrics.requests.get_or_create(&RequestLabels { code, method, host: host.clone() }).inc();
        match answer {
            Err(_) => Err(Unanswered::Timeout),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_connect(&error) => Err(Unanswered::NoConnection(chain(&error))),
            Ok(Err(error)) => Err(Unanswered::Broken(chain(&error))),
        }
    }
}

/// Begins with nothing and inserts: a guest cannot add to these, and no other layer's header stands beside them.
fn headers(current: &Current, upstream: &Upstream) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(IMPERSONATE_USER, current.user.clone());
    headers.insert(USER_AGENT, current.user_agent.clone());
    headers.insert(ACCEPT, upstream.accept.clone());
    if let Some(content_type) = upstream.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers
}

fn metric_method(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "GET",
    }
}

/// Did the connection fail before anything was sent?
fn is_connect(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        source = error.source();
    }
    false
}

/// The causes of an error in one line; the outermost words say little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// The headers of an answer that a guest gets.
pub(crate) fn answer_headers(upstream: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, http::header::RETRY_AFTER, http::header::WARNING] {
        for value in upstream.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}
