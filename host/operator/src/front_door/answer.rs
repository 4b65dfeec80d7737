//! The host's own answers: Kubernetes `Status` objects, as clients of an API server expect.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use wasm_operator_cluster::callers::CallerError;
use wasm_operator_core::dispatch::{Refusal, Time};
use wasm_operator_core::front_door::NoRoute;
use wasm_operator_engine::{HttpError, ResponseBody};

/// Why a request is not answered by a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("the method is not one of GET, HEAD, POST, PUT, PATCH, DELETE")]
    Method,
    #[error(transparent)]
    Path(#[from] NoRoute),
    #[error("a bearer token is needed: a ServiceAccount's token for the audience of this front door")]
    NoToken,
    #[error("name and password are needed")]
    NoPassword,
    #[error("name or password is wrong")]
    WrongPassword,
    #[error(transparent)]
    Caller(#[from] CallerError),
    #[error(
        "user `{user}` cannot `{verb}` resource `guests/proxy` in API group `wasm-operator.dev` with the name `{guest}`"
    )]
    Forbidden { user: String, verb: &'static str, guest: String },
    #[error("there is no guest `{0}`")]
    NoGuest(String),
    #[error("the guest `{0}` serves no requests")]
    ServesNothing(String),
    #[error("the body of the request has more than {0} bytes")]
    TooLarge(u64),
    #[error("the body of the request did not come in time")]
    SlowBody,
    #[error("the body of the request broke off")]
    BrokenBody,
    #[error("the host holds as many bodies of requests as it can; try again later")]
    TooManyBodies,
    #[error("too many wrong passwords; try again later")]
    TooManyPasswords,
    #[error("too many requests wait for the guest `{0}`; try again later")]
    QueueFull(String),
    #[error("the guest `{0}` is suspended")]
    Suspended(String),
    #[error("the guest `{guest}` has failed and is started again in {} s", .after.as_secs().max(1))]
    Failed { guest: String, after: Duration },
    #[error("the host is stopping; try again later")]
    Stopping,
    #[error("the guest `{0}` cannot be started; the host's log says why")]
    NoInstance(String),
    #[error("the guest `{guest}` broke off while it served the request {request}; the host's log says why")]
    Broken { guest: String, request: String },
    #[error("the guest `{0}` gave no usable answer")]
    NoAnswer(String),
    #[error("the guest `{guest}` did not answer within {milliseconds} ms")]
    TooLate { guest: String, milliseconds: u64 },
}

/// A caller who has to come back later is told to do so after a second: queues and API servers recover in that time.
const RETRY: Duration = Duration::from_secs(1);

impl Denial {
    /// A refusal of the dispatcher.
    pub(crate) fn refused(refusal: Refusal, guest: &str, now: Time) -> Self {
        let guest = guest.to_owned();
        match refusal {
            Refusal::Unknown => Self::NoGuest(guest),
            Refusal::QueueFull => Self::QueueFull(guest),
            Refusal::Suspended => Self::Suspended(guest),
            Refusal::Failed { until } => Self::Failed { guest, after: until.since(now) },
            Refusal::Draining => Self::Stopping,
        }
    }

    /// Status code and the reason that Kubernetes has for it.
    pub(crate) fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Path(NoRoute::DotSegment) | Self::BrokenBody => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::NoToken | Self::NoPassword | Self::WrongPassword | Self::Caller(CallerError::Token { .. }) => {
                (StatusCode::UNAUTHORIZED, "Unauthorized")
            }
            Self::Forbidden { .. } | Self::Caller(CallerError::Identity) => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Path(NoRoute::NotFound) | Self::NoGuest(_) | Self::ServesNothing(_) => {
                (StatusCode::NOT_FOUND, "NotFound")
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "Timeout"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            Self::Caller(CallerError::TooMany) | Self::QueueFull(_) | Self::TooManyPasswords => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")
            }
            Self::Broken { .. } | Self::NoAnswer(_) => (StatusCode::BAD_GATEWAY, "GuestFailed"),
            Self::Caller(CallerError::Unanswered(_))
            | Self::TooManyBodies
            | Self::Suspended(_)
            | Self::Failed { .. }
            | Self::NoInstance(_)
            | Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::TooLate { .. } => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
        }
    }

    /// What a caller may know: the host's troubles with the API server are for its log.
    fn message(&self) -> String {
        match self {
            Self::Caller(CallerError::Unanswered(_)) => {
                "it is not known at the moment who may call; try again later".to_owned()
            }
            other => other.to_string(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed { after, .. } => Some(*after),
            Self::Suspended(_) => None,
            other => matches!(other.code().0, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
                .then_some(RETRY),
        }
    }

    /// The answer to the caller.
    pub(crate) fn response(&self) -> Response<ResponseBody> {
        let (code, reason) = self.code();
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message(),
            "reason": reason,
            "code": code.as_u16(),
        });
        let mut response = Response::new(full(status.to_string()));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if code == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"));
        }
        if code == StatusCode::UNAUTHORIZED {
            let challenge = match self {
                Self::NoPassword | Self::WrongPassword => "Basic realm=\"guest\", charset=\"UTF-8\"",
                Self::Caller(_) => "Bearer error=\"invalid_token\"",
                _ => "Bearer",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

fn full(text: String) -> ResponseBody {
    Full::new(Bytes::from(text)).map_err(|never| -> HttpError { match never {} }).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_denial_has_the_code_and_the_headers_that_clients_know() {
        let guest = || "hello".to_owned();
        let cases = [
            (Denial::NoToken, 401, Some("Bearer"), None),
            (Denial::Caller(CallerError::Token { audience: "a".into() }), 401, Some("Bearer error"), None),
            (Denial::NoPassword, 401, Some("Basic realm"), None),
            (Denial::Forbidden { user: "u".into(), verb: "get", guest: guest() }, 403, None, None),
            (Denial::NoGuest(guest()), 404, None, None),
            (Denial::Method, 405, None, None),
            (Denial::TooLarge(1), 413, None, None),
            (Denial::QueueFull(guest()), 429, None, Some("1")),
            (Denial::Caller(CallerError::TooMany), 429, None, Some("1")),
            (Denial::Broken { guest: guest(), request: "1".into() }, 502, None, None),
            (Denial::Suspended(guest()), 503, None, None),
            (Denial::Failed { guest: guest(), after: Duration::from_secs(7) }, 503, None, Some("7")),
            (Denial::Stopping, 503, None, Some("1")),
            (Denial::TooLate { guest: guest(), milliseconds: 1 }, 504, None, None),
        ];
        for (denial, code, challenge, retry) in cases {
            let response = denial.response();
            let header = |name| response.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!(response.status(), code, "{denial:?}");
            assert_eq!(header(RETRY_AFTER), retry, "{denial:?}");
            let given = header(WWW_AUTHENTICATE);
            assert!(given.is_some() == challenge.is_some() && given.unwrap_or("").starts_with(challenge.unwrap_or("")));
        }
    }

    #[tokio::test]
    async fn an_answer_is_a_status_and_hides_the_hosts_own_troubles() {
        let denial = Denial::Caller(CallerError::Unanswered("https://10.0.0.1 refused".into()));
        let body = denial.response().into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status["kind"].as_str(), status["code"].as_u64()), (Some("Status"), Some(503)));
        assert!(!status["message"].as_str().unwrap().contains("10.0.0.1"), "{status}");
    }
}
