//! Asks to be called again after `data.after` milliseconds, each time anew, and writes one line of JSON to stdout for
//! each reconcile: `{"timer": {"key", "cause", "at"}}`, where `at` is in microseconds since 1970. Without `data.after`
//! it waits for a change.

use std::time::{SystemTime, UNIX_EPOCH};

use misbehaving::guest::serde_json::json;
use misbehaving::guest::types::Outcome;
use misbehaving::guest::{Answer, Object};

fn reconcile(object: Object) -> Answer {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let key = format!("{}/{}", object.namespace, object.name);
    println!("{}", json!({"timer": {"key": key, "cause": object.cause, "at": at}}));
    Ok(object.number("after").map_or(Outcome::Done, Outcome::RequeueAfter))
}

misbehaving::program!(reconcile);
