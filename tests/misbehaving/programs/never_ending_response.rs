//! Reads a response that does not end: a watch on the ConfigMaps of its namespace, or what `data.url` names.

use misbehaving::guest::{Answer, Object, drain, report};

fn reconcile(object: Object) -> Answer {
    match object.target("?watch=true").send() {
        Ok(response) => {
            let status = response.status;
            let (length, error) = drain(response);
            let end = error.map_or_else(|| "complete".to_owned(), |error| error.to_string());
            report(format!("status {status}, {length} bytes, {end}"))
        }
        Err(error) => report(error.to_string()),
    }
}

misbehaving::program!(reconcile);
