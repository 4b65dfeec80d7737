//! Sends a body of 16 MiB, and reports what came of it.

use misbehaving::guest::http::Request;
use misbehaving::guest::{Answer, Object, report};

fn reconcile(object: Object) -> Answer {
    let body = vec![b' '; 16 << 20];
    match Request::apply(&format!("{}/{}-huge", object.collection(), object.name), body).send() {
        Ok(response) => report(format!("status {}", response.status)),
        Err(error) => report(error.to_string()),
    }
}

misbehaving::program!(reconcile);
