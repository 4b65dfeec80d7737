//! The shared caches as the gateway reads them.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use wasm_operator_core::gate::{Held, Target, View};
use wasm_operator_core::object::{Object, ObjectRef, ResourceVersion};
use wasm_operator_core::selector::LabelSelector;
use wasm_operator_core::watch::{Representation, Resource};

use super::store::Store;
use super::wire::Source;
use super::{Feed, FeedScope, Informers, Running, SubscriptionState};
use crate::gateway::{Cache, Caches, Snapshot};

impl Caches for Informers {
    fn caches(&self, user: &str, group: &str, plural: &str) -> Vec<Arc<dyn Cache>> {
        let streams = self.shared.streams.lock();
        let readable = |source: &Source| {
            source.private_to.as_deref().is_none_or(|owner| owner == user)
                && source.resource.group == group
                && source.resource.plural == plural
        };
        streams
            .iter()
            .filter(|(source, _)| readable(source))
            .filter_map(|(_, running)| Weak::upgrade(running))
            .map(|running| Arc::new(StreamCache(running)) as Arc<dyn Cache>)
            .collect()
    }

    fn feed(&self, user: Arc<str>, scope: FeedScope) -> BoxFuture<'static, Option<Feed>> {
        let informers = self.clone();
        Box::pin(async move { informers.feed_of(user, scope).await })
    }
}

/// The cache of one stream. It keeps the stream alive while it is read.
pub(crate) struct StreamCache(pub(crate) Arc<Running>);

impl StreamCache {
    fn source(&self) -> &Source {
        &self.0.stream.source
    }
}

impl Cache for StreamCache {
    fn resource(&self) -> &Resource {
        &self.source().resource
    }

    fn namespace(&self) -> Option<&str> {
        self.source().namespace.as_deref()
    }

    fn selectors(&self) -> (&str, &str) {
        (&self.source().label_selector, &self.source().field_selector)
    }

    fn representation(&self) -> Representation {
        self.source().representation
    }

    fn read(&self, read: &mut dyn FnMut(&dyn Snapshot)) {
        self.0.stream.read(|store, state| read(&State { store, state, source: self.source() }));
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut moved = self.0.stream.moved();
        Box::pin(async move {
            // An error means that the stream is gone, which is a change as well.
            let _ = moved.changed().await;
        })
    }
}

/// A stream's objects under its lock.
struct State<'a> {
    store: &'a Store,
    state: &'a SubscriptionState,
    source: &'a Source,
}

impl View for State<'_> {
    fn position(&self) -> Option<ResourceVersion> {
        self.store.position().filter(|_| self.state.is_basis()).cloned()
    }

    fn held(&self, object: &ObjectRef) -> Option<Held> {
        let metadata = &self.store.get(object)?.metadata;
        Some(Held {
            uid: metadata.uid.clone(),
            version: metadata.resource_version.clone(),
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }

    fn covers(&self, target: &Target) -> bool {
        // Of a field selector nothing is known here, so the object may be selected.
        self.has_namespace_of(target) && self.labels_select(target).unwrap_or(true)
    }

    fn selects(&self, target: &Target) -> bool {
        self.has_namespace_of(target)
            && self.source.field_selector.is_empty()
            && self.labels_select(target).unwrap_or(false)
    }
}

impl State<'_> {
    fn has_namespace_of(&self, target: &Target) -> bool {
        self.source.namespace.is_none() || self.source.namespace == target.object.namespace
    }

    /// None: unknown.
    fn labels_select(&self, target: &Target) -> Option<bool> {
        let selector = LabelSelector::parse(&self.source.label_selector).ok()?;
        if selector.is_empty() {
            return Some(true);
        }
        target.labels.as_ref().map(|labels| selector.matches(labels))
    }
}

impl Snapshot for State<'_> {
    fn as_view(&self) -> &dyn View {
        self
    }

    fn is_connected(&self) -> bool {
        *self.state == SubscriptionState::Synced
    }

    fn get(&self, object: &ObjectRef) -> Option<Arc<Object>> {
        self.store.get(object).cloned()
    }

    fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let within = |object: &&Arc<Object>| {
            namespace.is_none_or(|namespace| object.metadata.namespace.as_deref() == Some(namespace))
        };
        let mut objects: Vec<_> = self.store.objects().filter(within).cloned().collect();
        objects.sort_by_cached_key(|object| object.object_ref().to_string());
        objects
    }
}
