//! Sends the requests that the ConfigMap describes, one after the other, and writes what came back.
//!
//! `data.requests` is a JSON list of `{"method", "path", "scheme", "authority", "headers": [[name, value]], "body"}`; only
//! `path` must be there, the others default to a GET of the Kubernetes API. A body that is not a text is sent as JSON.
//!
//! The answers are a JSON list of `{"status", "headers": [[name, value]], "body"}` (at most 16 KiB of the body) or
//! `{"error"}`. They go to stdout as the line `{"answers": {"key", "id", "answers"}}`, where `id` is `data.id`, and to the
//! ConfigMap `<name>-answers` as `data.id` and `data.answers`, unless the environment says `ANSWERS=log`.

use misbehaving::guest::http::{Error, Request};
use misbehaving::guest::serde_json::{self, Value, json};
use misbehaving::guest::{Answer, Object, done, report};

/// What is kept of a body: the whole of an error, and little of what a test with large answers reads.
const KEPT: usize = 16 << 10;

fn request(described: &Value) -> Request {
    let text = |key: &str| described.get(key).and_then(Value::as_str);
    let mut request = Request::new(text("method").unwrap_or("GET"), text("path").unwrap_or_default());
    if let Some(scheme) = text("scheme") {
        scheme.clone_into(&mut request.scheme);
    }
    if let Some(authority) = text("authority") {
        authority.clone_into(&mut request.authority);
    }
    for header in described.get("headers").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(name), Some(value)) =
            (header.get(0).and_then(Value::as_str), header.get(1).and_then(Value::as_str))
        {
            request = request.header(name, value);
        }
    }
    match described.get("body") {
        None => request,
        Some(Value::String(body)) => request.body(body.as_bytes()),
        Some(body) => request.body(body.to_string()),
    }
}

fn send(described: &Value) -> Result<Value, Error> {
    let response = request(described).send()?;
    let status = response.status;
    let headers: Vec<Value> =
        response.headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
    let mut body = response.bytes()?;
    body.truncate(KEPT);
    Ok(json!({"status": status, "headers": headers, "body": String::from_utf8_lossy(&body)}))
}

fn reconcile(object: Object) -> Answer {
    let Some(requests) = object.data("requests") else { return done() };
    let requests: Vec<Value> = match serde_json::from_str(requests) {
        Ok(requests) => requests,
        Err(error) => return report(format!("`data.requests` is no JSON list: {error}")),
    };
    let answers: Vec<Value> = requests
        .iter()
        .map(|described| send(described).unwrap_or_else(|error| json!({"error": error.to_string()})))
        .collect();
    let (id, key) = (object.data("id").unwrap_or_default(), format!("{}/{}", object.namespace, object.name));
    println!("{}", json!({"answers": {"key": key, "id": id, "answers": answers}}));
    if std::env::var("ANSWERS").as_deref() != Ok("log") {
        object.write("answers", &json!({"id": id, "answers": Value::from(answers).to_string()}))?;
    }
    done()
}

misbehaving::program!(reconcile);
