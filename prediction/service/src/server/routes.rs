//! `POST /prediction` and `GET /livez`.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::error;

use super::answer;
use super::limits::{BODY_TIME, MAX_BODY_BYTES, QUEUE_TIME};
use super::request::Request;

/// Why a request has no forecast, but for what is wrong inside its body.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The client's to mend.
    #[error("the content type is {0}: send JSON, with `content-type: application/json`")]
    ContentType(String),
    /// The client's to mend.
    #[error("the body is larger than {MAX_BODY_BYTES} bytes: send only the latest events")]
    TooLarge,
    /// The client's, or the network's.
    #[error("the body did not arrive within {} s", BODY_TIME.as_secs())]
    Slow,
    /// The client's, or the network's.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// Worth another try.
    #[error("all computations are taken: try again later")]
    Busy,
    /// The service's own fault.
    #[error("the computation failed")]
    Failed,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        answer::error(status, &self.to_string())
    }
}

/// `computations` run at once, off the threads that serve connections.
pub(crate) fn router(computations: usize) -> Router {
    Router::new()
        .route("/prediction", post(predict))
        .route("/livez", get(async || "ok"))
        .method_not_allowed_fallback(wrong_method)
        .fallback(wrong_path)
        .with_state(Arc::new(Semaphore::new(computations)))
}

async fn predict(
    State(computations): State<Arc<Semaphore>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    check_content_type(&headers)?;
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(Refusal::TooLarge);
    }
    let body = match timeout(BODY_TIME, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Err(_) => return Err(Refusal::Slow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge),
        Ok(Err(error)) => return Err(Refusal::Broken(error.to_string())),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let place = timeout(QUEUE_TIME, computations.acquire_owned()).await;
    let place = place.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Failed)?;
    let computed = tokio::task::spawn_blocking(move || {
        // Held to the end, also when the client is gone before.
        let _place = place;
        Request::parse(&body).map(|request| answer::predict(&request, Timestamp::now()))
    });
    match computed.await {
        Ok(Ok(moment)) => Ok(answer::prediction(moment)),
        Ok(Err(bad)) => Ok(answer::error(StatusCode::BAD_REQUEST, &bad.to_string())),
        Err(panic) => {
            error!(%panic, "a computation failed");
            Err(Refusal::Failed)
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Err(Refusal::ContentType("missing".to_owned())) };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::ContentType(format!("`{}`", media_type.chars().take(64).collect::<String>())))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let allowed = if uri.path() == "/livez" { "GET" } else { "POST" };
    answer::error(StatusCode::METHOD_NOT_ALLOWED, &format!("`{method}` is not allowed here: use `{allowed}`"))
}

async fn wrong_path() -> Response {
    answer::error(StatusCode::NOT_FOUND, "there is nothing here: use `POST /prediction` or `GET /livez`")
}
