//! Makes as many ConfigMaps as `data.children` says and counts them in its own object, `data.made`. It counts a child after
//! it has made it, and the child's name is the API server's choice: who is dropped in between makes one too many.
//!
//! With `data.names: fixed` it does the same with names that it can say beforehand, and so can be dropped anywhere.

use misbehaving::guest::serde_json::{self, Value, json};
use misbehaving::guest::types::Failure;
use misbehaving::guest::{Answer, Object, done, http::Request, retryable};

/// Every other status than success is tried again.
fn send(request: Request) -> Result<Vec<u8>, Failure> {
    let path = request.path.clone();
    let answer = request.send().and_then(|response| Ok((response.status, response.bytes()?)));
    match answer {
        Ok((200..=299, body)) => Ok(body),
        Ok((status, body)) => Err(retryable(format!("{path}: {status} {}", String::from_utf8_lossy(&body)), None)),
        Err(error) => Err(retryable(format!("{path}: {error}"), None)),
    }
}

fn child(object: &Object, number: u64) -> Result<Vec<u8>, Failure> {
    let owner = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "controller": true,
        "name": object.name, "uid": object.metadata("uid"),
    });
    let mut child = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "ownerReferences": [owner] },
        "data": { "of": object.name, "value": object.data("value") },
    });
    if object.data("names") == Some("fixed") {
        let name = format!("{}-{number}", object.name);
        child["metadata"]["name"] = Value::from(name.as_str());
        send(Request::apply(&format!("{}/{name}", object.collection()), child.to_string()))
    } else {
        child["metadata"]["generateName"] = format!("{}-", object.name).into();
        let request = Request::new("POST", &object.collection());
        send(request.header("content-type", "application/json").body(child.to_string()))
    }
}

fn reconcile(object: Object) -> Answer {
    if object.content.is_null() || object.content.pointer("/metadata/deletionTimestamp").is_some() {
        return done();
    }
    // Not the copy that the reconcile came with, which may be older than what the last one counted.
    let path = format!("{}/{}", object.collection(), object.name);
    let current: Value = serde_json::from_slice(&send(Request::new("GET", &path))?).unwrap_or_default();
    let made = current.pointer("/data/made").and_then(Value::as_str).and_then(|made| made.parse().ok());
    for number in made.unwrap_or_default()..object.number("children").unwrap_or_default() {
        child(&object, number)?;
        let count = json!({ "data": { "made": (number + 1).to_string() } });
        let request = Request::new("PATCH", &path);
        send(request.header("content-type", "application/merge-patch+json").body(count.to_string()))?;
    }
    done()
}

misbehaving::program!(reconcile);
