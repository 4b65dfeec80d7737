//! A shared cache as the gateway reads it.

use std::sync::Arc;

use tokio::sync::watch;
use wasm_operator_core::object::{Object, ObjectRef, ResourceVersion};

use super::Running;

/// A complete cache of a kind, in one namespace or in all. It keeps its stream alive.
pub struct CacheView {
    running: Arc<Running>,
    namespace: Option<Arc<str>>,
}

impl CacheView {
    pub(super) fn new(running: Arc<Running>, namespace: Option<Arc<str>>) -> Self {
        Self { running, namespace }
    }

    /// One object of the view's namespace.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Object>> {
        let object = ObjectRef { namespace: self.namespace.clone(), name: name.into() };
        self.running.stream.get(&object, &super::filter::Filter::default())
    }

    /// The object with this uid, wherever it is.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<Arc<Object>> {
        self.running.stream.by_uid(uid)
    }

    /// The objects that `selects` chooses, in the order of `<namespace>/<name>`, and the stream's position, of one moment.
    #[must_use]
    pub fn list(&self, mut selects: impl FnMut(&Object) -> bool) -> (Vec<Arc<Object>>, Option<ResourceVersion>) {
        let namespace = self.namespace.as_deref();
        let (mut objects, position) = self.running.stream.snapshot(|object| {
            namespace.is_none_or(|namespace| object.metadata.namespace.as_deref() == Some(namespace)) && selects(object)
        });
        let key = |object: &Arc<Object>| match &object.metadata.namespace {
            Some(namespace) => format!("{namespace}/{}", object.metadata.name),
            None => object.metadata.name.to_string(),
        };
        objects.sort_by_cached_key(key);
        (objects, position)
    }

    /// The version of the last event, bookmark or list.
    #[must_use]
    pub fn position(&self) -> Option<ResourceVersion> {
        self.running.stream.position()
    }

    /// Counts the server's histories: when it grows, versions from before mean nothing any more.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.running.stream.history()
    }

    /// Changes whenever something was received.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.running.stream.moved()
    }
}
