//! What the gateway needs of the shared caches.

use std::sync::Arc;

use futures::future::BoxFuture;
use wasm_operator_core::gate::View;
use wasm_operator_core::object::{Object, ObjectRef};
use wasm_operator_core::watch::{Representation, Resource};

use crate::informer::{Feed, FeedScope};

/// The shared caches of the host.
pub trait Caches: Send + Sync {
    /// Every cache of the resource that this user may be answered from if it has the right: of any version and scope,
    /// those that have not listed yet included, those that are private to others left out.
    fn caches(&self, user: &str, group: &str, plural: &str) -> Vec<Arc<dyn Cache>>;

    /// The stream, listed, from which lists and watches of this scope are served. None where the server has to be asked.
    fn feed(&self, _user: Arc<str>, _scope: FeedScope) -> BoxFuture<'static, Option<Feed>> {
        Box::pin(std::future::ready(None))
    }
}

/// One cache: the objects of one upstream watch.
pub trait Cache: Send + Sync {
    /// What it holds.
    fn resource(&self) -> &Resource;
    /// None: all namespaces.
    fn namespace(&self) -> Option<&str>;
    /// Label and field selector of the watch, empty for everything.
    fn selectors(&self) -> (&str, &str);
    /// Whole objects or metadata only.
    fn representation(&self) -> Representation;
    /// Calls `read` with one consistent state. The cache does not move meanwhile, so `read` must be short and must not
    /// read another cache.
    fn read(&self, read: &mut dyn FnMut(&dyn Snapshot));
    /// Resolves when something was received after this call, or the cache is gone.
    fn changed(&self) -> BoxFuture<'static, ()>;
}

/// One consistent state of a cache. Its position is None while the cache is no basis for answers.
pub trait Snapshot: View {
    /// Whether the cache hears of changes now, as far as anybody can know.
    fn is_connected(&self) -> bool {
        true
    }
    /// As the gate sees it.
    fn as_view(&self) -> &dyn View;
    /// The object at this key.
    fn get(&self, object: &ObjectRef) -> Option<Arc<Object>>;
    /// All objects of the namespace, or all, in any order.
    fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>>;
}
