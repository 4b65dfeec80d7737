//! When a request is sent again, decided without sending anything.
//!
//! A POST is never sent twice after an outcome that is not known: `generateName` would create two objects. What the
//! server says it never ran, and what did not leave the host, may always be sent again.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use wasm_operator_core::request::{ContentType, DeleteOptions, ResourceRequest, Verb};

/// First delay without a `Retry-After`. Doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// Longest delay without a `Retry-After`.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Longest `Retry-After` that is honoured; the call's deadline is nearer in practice.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Times that one request is sent. Default 8: more than fit into the default deadline.
pub(crate) const MAX_ATTEMPTS: u32 = 8;

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The server answered, and this is the answer.
    Answered,
    /// The server turned it away before it ran.
    NeverRan,
    /// The server answered that it does not know, or is not able for now.
    Unavailable,
    /// Nothing was sent: no connection.
    NotSent,
    /// It was sent, and the connection broke.
    Lost,
}

impl Attempt {
    /// Reads an answer's head.
    pub(crate) fn of_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        let is_text = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/plain"));
        match status {
            // Flow control answers in text and the request never ran. A 429 in JSON is an answer, of an eviction for example.
            StatusCode::TOO_MANY_REQUESTS if is_text => Self::NeverRan,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Self::Unavailable,
            _ => Self::Answered,
        }
    }

    /// May the request be sent again?
    pub(crate) fn may_resend(self, safe: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Answered => false,
            Self::NeverRan | Self::NotSent => true,
            Self::Unavailable | Self::Lost => safe(),
        }
    }

    /// May the request have been carried out without the host knowing?
    pub(crate) fn leaves_outcome_open(self) -> bool {
        matches!(self, Self::Unavailable | Self::Lost)
    }
}

/// Does sending the request twice have the effect of sending it once? Reads, apply, a PUT with a version and a DELETE
/// with a uid.
pub(crate) fn is_safe(request: &ResourceRequest, content: ContentType, delete: DeleteOptions, body: &[u8]) -> bool {
    match request.verb {
        Verb::Get | Verb::List | Verb::Watch => true,
        Verb::Patch => content == ContentType::Apply,
        Verb::Update => has_version(body),
        Verb::Delete => delete.has_uid,
        Verb::Create | Verb::DeleteCollection => false,
    }
}

fn has_version(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    serde_json::from_slice::<Object>(body).is_ok_and(|object| !object.metadata.resource_version.is_empty())
}

/// How long to wait before the attempt after `attempt` (the first is 1): what the server asks for, or doubling steps, and
/// up to half of that again, so that guests which were turned away together do not come back together.
pub(crate) fn delay(attempt: u32, headers: Option<&HeaderMap>) -> Duration {
    let asked = headers
        .and_then(|headers| headers.get(RETRY_AFTER))
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok())
        .map(Duration::from_secs);
    let base = match asked {
        Some(asked) => asked.min(MAX_RETRY_AFTER),
        None => FIRST_DELAY.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(MAX_DELAY),
    };
    base + base.mul_f64(random() / 2.0)
}

/// From 0 to 1. The hasher's random keys are seed enough for jitter.
fn random() -> f64 {
    let hash = std::hash::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(hash >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use wasm_operator_core::request::ApiRequest;

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(k, v)| (k.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    fn safe(method: &str, content: ContentType, body: &str) -> bool {
        let path =
            if method == "POST" { "/api/v1/namespaces/a/configmaps" } else { "/api/v1/namespaces/a/configmaps/x" };
        let Ok(ApiRequest::Resource(request)) = ApiRequest::parse(method, path) else { panic!("{method}") };
        let delete = if method == "DELETE" {
            DeleteOptions::parse(&request.query, body.as_bytes()).unwrap()
        } else {
            DeleteOptions::default()
        };
        is_safe(&request, content, delete, body.as_bytes())
    }

    #[test]
    fn only_what_has_the_same_effect_twice_is_safe() {
        assert!(safe("GET", ContentType::Json, ""));
        assert!(safe("PATCH", ContentType::Apply, "{}"));
        assert!(safe("PUT", ContentType::Json, r#"{"metadata":{"resourceVersion":"5"}}"#));
        assert!(safe("DELETE", ContentType::Json, r#"{"preconditions":{"uid":"u"}}"#));
        assert!(!safe("POST", ContentType::Json, r#"{"metadata":{"resourceVersion":"5"}}"#));
        assert!(!safe("PATCH", ContentType::MergePatch, r#"{"metadata":{"resourceVersion":"5"}}"#));
        assert!(!safe("PATCH", ContentType::JsonPatch, "[]"));
        assert!(!safe("PUT", ContentType::Json, r#"{"metadata":{}}"#));
        assert!(!safe("PUT", ContentType::Json, "garbage"));
        assert!(!safe("DELETE", ContentType::Json, "{}"));
        assert!(!safe("DELETE", ContentType::Json, ""));
    }

    // Rule 30
    #[test]
    fn flow_control_is_told_from_an_answer_by_its_type() {
        let attempt =
            |code, kind| Attempt::of_answer(StatusCode::from_u16(code).unwrap(), &headers(&[("content-type", kind)]));
        assert_eq!(attempt(429, "text/plain; charset=utf-8"), Attempt::NeverRan);
        assert_eq!(attempt(429, "application/json"), Attempt::Answered);
        assert_eq!(attempt(503, "text/plain"), Attempt::Unavailable);
        assert_eq!(attempt(504, "application/json"), Attempt::Unavailable);
        for code in [200, 201, 400, 403, 404, 409, 422, 500] {
            assert_eq!(attempt(code, "text/plain"), Attempt::Answered, "{code}");
        }
    }

    #[test]
    fn an_unsafe_request_is_sent_again_only_when_it_never_ran() {
        for (attempt, resent) in [
            (Attempt::NeverRan, true),
            (Attempt::NotSent, true),
            (Attempt::Lost, false),
            (Attempt::Unavailable, false),
            (Attempt::Answered, false),
        ] {
            assert_eq!(attempt.may_resend(|| false), resent, "{attempt:?}");
        }
        assert!(Attempt::Lost.may_resend(|| true));
        assert!(!Attempt::Answered.may_resend(|| true));
    }

    #[test]
    fn retry_after_is_honoured_with_jitter() {
        for _ in 0..100 {
            let asked = delay(1, Some(&headers(&[("retry-after", "2")])));
            assert!((Duration::from_secs(2)..=Duration::from_secs(3)).contains(&asked), "{asked:?}");
            let first = delay(1, None);
            assert!((FIRST_DELAY..=FIRST_DELAY * 3 / 2).contains(&first), "{first:?}");
            assert!(delay(u32::MAX, None) <= MAX_DELAY * 3 / 2);
            assert!(delay(1, Some(&headers(&[("retry-after", "99999999999")]))) <= MAX_RETRY_AFTER * 3 / 2);
            assert!(delay(1, Some(&headers(&[("retry-after", "soon")]))) <= FIRST_DELAY * 3 / 2);
        }
    }
}
