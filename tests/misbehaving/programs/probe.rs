//! The well-behaved neighbour: copies `data.value` into the ConfigMap `<name>-seen` at each change, so that a test can
//! measure how long that takes.

use misbehaving::guest::serde_json::json;
use misbehaving::guest::{Answer, Object, done};

fn reconcile(object: Object) -> Answer {
    if !object.content.is_null() {
        let version = object.metadata("resourceVersion").unwrap_or_default();
        object
            .write("seen", &json!({"value": object.data("value").unwrap_or_default(), "resourceVersion": version}))?;
    }
    done()
}

misbehaving::program!(reconcile);
