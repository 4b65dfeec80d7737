//! The one call.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};

use crate::files::{Error, Files};

/// The most bytes of a request: a value is a parameter, not a file.
const MAX_BODY: usize = 64 << 10;

pub(crate) fn router(files: Files) -> Router {
    Router::new().route("/conf/{name}", post(set)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(files)
}

async fn set(State(files): State<Files>, Path(name): Path<String>, body: Bytes) -> Response {
    let Ok(Value::Object(message)) = serde_json::from_slice(&body) else {
        return error(StatusCode::NOT_FOUND, "the body is not a JSON object");
    };
    // Values that count as nothing are values all the same.
    let content = match message.get("value") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match files.write(&name, &content) {
        Ok(()) => "OK".into_response(),
        Err(fault @ Error::Name(_)) => error(StatusCode::BAD_REQUEST, &fault.to_string()),
        Err(fault @ Error::Write { .. }) => error(StatusCode::INTERNAL_SERVER_ERROR, &fault.to_string()),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], json!({ "error": message }).to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn call(files: &Files, path: &str, body: &str) -> StatusCode {
        let request = Request::post(path).body(axum::body::Body::from(body.to_owned())).unwrap();
        router(files.clone()).oneshot(request).await.unwrap().status()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_value_becomes_the_content_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().to_owned());
        for (value, content) in [
            ("\"10.244.4.8\"", "10.244.4.8"),
            ("\"\"", ""),
            ("0", "0"),
            ("false", "false"),
            ("null", ""),
            ("[1]", "[1]"),
        ] {
            assert_eq!(call(&files, "/conf/target_ip", &format!("{{\"value\": {value}}}")).await, 200, "{value}");
            assert_eq!(std::fs::read_to_string(directory.path().join("target_ip")).unwrap(), content);
        }
        assert_eq!(call(&files, "/conf/target_ip", "{}").await, 200);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_written_outside_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("conf");
        std::fs::create_dir(&inner).unwrap();
        let files = Files::new(inner.clone());
        for path in
            ["/conf/..%2Fescaped", "/conf/%2Fetc%2Fescaped", "/conf/..", "/conf/.hidden", "/conf/a%00b", "/conf/%20"]
        {
            assert!(call(&files, path, "{\"value\": 1}").await.is_client_error(), "{path}");
        }
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_object_or_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().to_owned());
        for body in ["", "nonsense", "[]", "7"] {
            assert_eq!(call(&files, "/conf/a", body).await, 404, "{body}");
        }
        let long = format!("{{\"value\": \"{}\"}}", "x".repeat(MAX_BODY));
        assert_eq!(call(&files, "/conf/a", &long).await, 413);
        assert_eq!(call(&Files::new("/nowhere".into()), "/conf/a", "{}").await, 500);
    }

    #[test]
    fn the_first_content_is_that_of_the_config_map() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join("a"), "1").unwrap();
        std::fs::create_dir(from.path().join("..data")).unwrap();
        let files = Files::new(to.path().to_owned());
        files.copy_from(from.path()).unwrap();
        files.copy_from(std::path::Path::new("/nowhere")).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("a")).unwrap(), "1");
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 1);
    }
}
