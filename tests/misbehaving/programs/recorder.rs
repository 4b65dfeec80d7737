//! Writes one line of JSON to stdout for each reconcile: `{"reconcile": {"key", "cause", "attempt", "id", "uid",
//! "resourceVersion", "value", "deleted", "at"}}`, where `deleted` are UIDs and `at` is in microseconds since 1970.
//!
//! `data.sleep` (milliseconds) makes it take its time; it then writes `{"finished": {"key", "id", "at"}}` at the end.
//! `data.answer` makes it answer `retryable`, after `data.after` milliseconds if that is there, or `terminal`, with the
//! message `as told`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use misbehaving::guest::serde_json::json;
use misbehaving::guest::types::Failure;
use misbehaving::guest::{Answer, Object, done, retryable};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn reconcile(object: Object) -> Answer {
    let key = format!("{}/{}", object.namespace, object.name);
    println!(
        "{}",
        json!({"reconcile": {
            "key": key,
            "cause": object.cause,
            "attempt": object.attempt,
            "id": object.id,
            "uid": object.metadata("uid"),
            "resourceVersion": object.metadata("resourceVersion"),
            "value": object.data("value"),
            "deleted": object.deleted,
            "at": now(),
        }})
    );
    if let Some(milliseconds) = object.number("sleep") {
        std::thread::sleep(Duration::from_millis(milliseconds));
        println!("{}", json!({"finished": {"key": key, "id": object.id, "at": now()}}));
    }
    match object.data("answer") {
        Some("retryable") => Err(retryable("as told", object.number("after"))),
        Some("terminal") => Err(Failure::Terminal("as told".to_owned())),
        _ => done(),
    }
}

misbehaving::program!(reconcile);
