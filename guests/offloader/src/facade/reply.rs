//! Answers in the shapes of the original, which was a Flask program.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::reconcile::explain;

/// A success.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Plain text with 200.
    Text(&'static str),
    /// JSON with 200.
    Json(Value),
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    status: StatusCode,
    message: String,
    /// A page of HTML instead of JSON, as Flask's `abort` writes it.
    page: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl Fault {
    /// What Flask's `abort` answers.
    pub(super) fn page(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), page: true }
    }

    /// 404 as Flask writes it.
    pub(super) fn not_found() -> Self {
        Self::page(StatusCode::NOT_FOUND, "The requested URL was not found on the server.")
    }

    /// 400 with `{"error": ...}`.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), page: false }
    }

    /// 500 with `{"error": "Internal error. ..."}`.
    pub(super) fn internal(message: impl fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: format!("Internal error. {message}"), page: false }
    }

    /// The API server's refusal, in its words.
    pub(super) fn kubernetes(error: kube::Error) -> Self {
        Self::internal(explain(&error))
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

/// The response.
pub(super) fn of(answer: Result<Answer, Fault>) -> Response<Bytes> {
    let (status, kind, body) = match answer {
        Ok(Answer::Text(text)) => (StatusCode::OK, "text/html; charset=utf-8", text.to_owned()),
        Ok(Answer::Json(value)) => (StatusCode::OK, "application/json", value.to_string()),
        Err(fault) if fault.page => (fault.status, "text/html", page(&fault)),
        Err(fault) => (fault.status, "application/json", json!({ "error": fault.message }).to_string()),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn page(fault: &Fault) -> String {
    let reason = fault.status.canonical_reason().unwrap_or("Error");
    let code = fault.status.as_u16();
    // Part of the message comes from the caller.
    let message = fault.message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
    format!("<!DOCTYPE html>\n<title>{code} {reason}</title>\n<h1>{reason}</h1>\n<p>{message}</p>\n")
}
