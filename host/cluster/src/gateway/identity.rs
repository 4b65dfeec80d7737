//! Who a guest is to the API server.

use std::time::Duration;

use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use kube::Client;
use serde::Deserialize;
use wasm_operator_core::permission::ServiceAccountUser;
use wasm_operator_core::request::Refusal;

use super::body::collect;

/// The one header that makes the server run a request as someone else. It is inserted into headers that the host made
/// itself, so no second one can stand beside it. Groups are left to the server: any group header would suppress the
/// account's own.
pub(crate) const IMPERSONATE_USER: &str = "impersonate-user";

/// Time for one review.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer to a review in bytes. 64 KiB: a name and its groups.
const MAX_REVIEW: u64 = 64 << 10;

/// Longest field manager in bytes, as the server has it.
const MAX_FIELD_MANAGER: usize = 128;

/// A guest's identity does not hold; the guest must not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The administrator has to change the configuration.
    #[error("`{0}` is not an identity for a guest; it must be `system:serviceaccount:<namespace>:<name>`")]
    Invalid(String),
    /// The host lacks the right to impersonate. The administrator can grant it.
    #[error(
        "the host may not act as `{user}`: {message}. It needs the verb `impersonate` on this service account; `wasm-operator rbac` prints the Role"
    )]
    Forbidden {
        /// The identity.
        user: String,
        /// The server's words.
        message: String,
    },
    /// Something between the host and the server drops or changes the header: every request would run as the host.
    #[error(
        "the API server takes a guest for `{actual}` instead of `{user}`: something on the way drops the impersonation"
    )]
    Different {
        /// The identity.
        user: String,
        /// What the server answered.
        actual: String,
    },
    /// The server did not answer as it should. May be retried.
    #[error("the API server did not say who `{user}` is: {cause}")]
    Unanswered {
        /// The identity.
        user: String,
        /// The cause as text.
        cause: String,
    },
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewStatus {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: String,
}

/// Compares who the server takes a guest for with who it shall be.
pub(crate) async fn verify(client: &Client, user: &str) -> Result<(), IdentityError> {
    ServiceAccountUser::parse(user).ok_or_else(|| IdentityError::Invalid(user.to_owned()))?;
    let header = HeaderValue::from_str(user).map_err(|_| IdentityError::Invalid(user.to_owned()))?;
    let unanswered = |cause: String| IdentityError::Unanswered { user: user.to_owned(), cause };
    let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .body(br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec().into())
        .map_err(|error| unanswered(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("wasm-operator/", env!("CARGO_PKG_VERSION"))));
    headers.insert(IMPERSONATE_USER, header);
    let review = async {
        let answer = client.send(request).await.map_err(|error| unanswered(error.to_string()))?;
        let status = answer.status();
        let body = collect(answer.into_body(), MAX_REVIEW).await.map_err(|error| unanswered(error.to_string()))?;
        if status == http::StatusCode::FORBIDDEN {
            #[derive(Deserialize, Default)]
            struct Status {
                #[serde(default)]
                message: String,
            }
            let status: Status = serde_json::from_slice(&body).unwrap_or_default();
            return Err(IdentityError::Forbidden { user: user.to_owned(), message: status.message });
        }
        if !status.is_success() {
            return Err(unanswered(format!("it answers {status}")));
        }
        let review: Review = serde_json::from_slice(&body).map_err(|error| unanswered(error.to_string()))?;
        Ok(review.status.user_info.username)
    };
    let actual = tokio::time::timeout(REVIEW_TIMEOUT, review)
        .await
        .map_err(|_| unanswered(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs())))??;
    if actual == user { Ok(()) } else { Err(IdentityError::Different { user: user.to_owned(), actual }) }
}

/// Can it stand in the query as `fieldManager`?
pub(crate) fn is_field_manager(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_FIELD_MANAGER && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// The manager of what a guest writes: its own name, with the one that it gave behind it. Two given names forced onto
/// one would erase each other's fields. `adopted` is the name of a native controller whose place the guest takes.
pub(crate) fn field_manager(guest: &str, given: Option<&str>, adopted: Option<&str>) -> Result<String, Refusal> {
    let manager = match (given.filter(|given| !given.is_empty()), adopted) {
        (None, Some(adopted)) => adopted.to_owned(),
        (Some(given), Some(adopted)) if given == adopted => adopted.to_owned(),
        (None, None) => guest.to_owned(),
        (Some(given), _) => format!("{guest}/{given}"),
    };
    if is_field_manager(&manager) {
        Ok(manager)
    } else {
        Err(Refusal::bad_request(format!(
            "`fieldManager` is too long or not printable: with the guest's name and `/` before it, it must have at most {MAX_FIELD_MANAGER} printable ASCII characters"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rule 22
    #[test]
    fn field_managers_carry_the_guests_name() {
        assert_eq!(field_manager("ring", None, None).unwrap(), "ring");
        assert_eq!(field_manager("ring", Some(""), None).unwrap(), "ring");
        assert_eq!(field_manager("ring", Some("status"), None).unwrap(), "ring/status");
        assert_eq!(field_manager("ring", None, Some("native")).unwrap(), "native");
        assert_eq!(field_manager("ring", Some("native"), Some("native")).unwrap(), "native");
        assert_eq!(field_manager("ring", Some("other"), Some("native")).unwrap(), "ring/other");
        assert_eq!(field_manager("ring", Some(&"x".repeat(123)), None).unwrap().len(), 128);
        for bad in ["x".repeat(124), "ä".to_owned(), "a\u{7f}".to_owned()] {
            assert_eq!(field_manager("ring", Some(&bad), None).unwrap_err().code, 400, "{bad}");
        }
    }
}
