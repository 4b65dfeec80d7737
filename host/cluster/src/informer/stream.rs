//! One upstream stream as its subscribers see it: the objects, and who hears of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use wasm_operator_core::object::{Change, Object, ObjectRef, ResourceVersion};

use super::filter::Filter;
use super::store::Store;
use super::wire::{Event, Source};
use super::{ParkReason, Subscriber, SubscriptionState};
use crate::metrics::{EventLabels, Metrics, ResourceLabel, RestartLabels};

/// What a stream and its reader share.
pub(crate) struct Stream {
    pub(crate) source: Source,
    inner: Mutex<Inner>,
    metrics: Metrics,
    label: ResourceLabel,
    /// Counts what was received, for those who wait for a position.
    moved: watch::Sender<u64>,
}

struct Inner {
    store: Store,
    state: SubscriptionState,
    subscribers: BTreeMap<u64, Entry>,
    next_subscriber: u64,
}

#[derive(Clone)]
struct Entry {
    filter: Arc<Filter>,
    subscriber: Arc<dyn Subscriber>,
}

impl Stream {
    pub(crate) fn new(source: Source, metrics: Metrics) -> Self {
        let label = ResourceLabel { resource: source.resource.to_string() };
        metrics.watch_streams.get_or_create(&label).inc();
        Self {
            source,
            inner: Mutex::new(Inner {
                store: Store::default(),
                state: SubscriptionState::Syncing,
                subscribers: BTreeMap::new(),
                next_subscriber: 0,
            }),
            metrics,
            label,
            moved: watch::channel(0).0,
        }
    }

    /// Adds a subscriber, which hears at once of the objects that are there.
    pub(crate) fn attach(&self, filter: Arc<Filter>, subscriber: Arc<dyn Subscriber>) -> u64 {
        let mut inner = self.inner.lock();
        for object in inner.store.objects().filter(|object| filter.selects(object)) {
            subscriber.changed(&Change { old: None, new: Some(object.clone()), initial: true });
        }
        subscriber.state(&inner.state);
        let id = inner.next_subscriber;
        inner.next_subscriber += 1;
        inner.subscribers.insert(id, Entry { filter, subscriber });
        self.metrics.watch_subscribers.get_or_create(&self.label).inc();
        id
    }

    pub(crate) fn detach(&self, id: u64) {
        if self.inner.lock().subscribers.remove(&id).is_some() {
            self.metrics.watch_subscribers.get_or_create(&self.label).dec();
        }
    }

    pub(crate) fn get(&self, object: &ObjectRef, filter: &Filter) -> Option<Arc<Object>> {
        self.inner.lock().store.get(object).filter(|object| filter.selects(object)).cloned()
    }

    pub(crate) fn list(&self, mut selects: impl FnMut(&Object) -> bool) -> Vec<Arc<Object>> {
        self.inner.lock().store.objects().filter(|object| selects(object)).cloned().collect()
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<Object>> {
        self.inner.lock().store.by_uid(uid).cloned()
    }

    /// Objects and position of one moment.
    pub(crate) fn snapshot(&self, mut selects: impl FnMut(&Object) -> bool) -> (Vec<Arc<Object>>, Option<ResourceVersion>) {
        let inner = self.inner.lock();
        (inner.store.objects().filter(|object| selects(object)).cloned().collect(), inner.store.position().cloned())
    }

    pub(crate) fn position(&self) -> Option<ResourceVersion> {
        self.inner.lock().store.position().cloned()
    }

    pub(crate) fn history(&self) -> u64 {
        self.inner.lock().store.history()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.inner.lock().state.has_objects()
    }

    /// Wakes whenever something was received.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Takes one event of a watch.
    pub(crate) fn apply(&self, event: Event) {
        let labels = EventLabels { resource: self.label.resource.clone(), r#type: event.name() };
        self.metrics.watch_events.get_or_create(&labels).inc();
        self.update(|store| match event {
            Event::Added(object) | Event::Modified(object) => store.upsert(object),
            Event::Deleted(object) => store.delete(&object).into_iter().collect(),
            Event::Bookmark { version, .. } => {
                store.advance(version);
                Vec::new()
            }
            Event::Error { .. } => Vec::new(),
        });
    }

    /// Takes a whole list.
    pub(crate) fn replace(&self, listed: Vec<Arc<Object>>, position: ResourceVersion) {
        let initial = !self.is_synced();
        self.update(|store| store.replace(listed, position, initial));
        self.set_state(SubscriptionState::Synced);
    }

    /// The kind is gone with all its objects.
    pub(crate) fn clear(&self) {
        self.update(Store::clear);
    }

    pub(crate) fn set_state(&self, state: SubscriptionState) {
        let mut inner = self.inner.lock();
        if inner.state == state {
            return;
        }
        inner.state = state;
        let Inner { state, subscribers, .. } = &*inner;
        for entry in subscribers.values() {
            entry.subscriber.state(state);
        }
        drop(inner);
        self.announce();
    }

    /// Parks or restarts, without forgetting that there are objects.
    pub(crate) fn interrupted(&self, reason: Option<ParkReason>) {
        let has_objects = self.is_synced();
        self.set_state(match reason {
            Some(reason) => SubscriptionState::Parked { reason, has_objects },
            None if has_objects => SubscriptionState::Restarting,
            None => SubscriptionState::Syncing,
        });
    }

    pub(crate) fn count_restart(&self, cause: &'static str) {
        let labels = RestartLabels { resource: self.label.resource.clone(), cause };
        self.metrics.watch_restarts.get_or_create(&labels).inc();
    }

    /// Changes the store and tells everybody. Subscribers do not block: they only note what is to be done.
    fn update(&self, edit: impl FnOnce(&mut Store) -> Vec<Change>) {
        let mut inner = self.inner.lock();
        let before = (inner.store.len(), inner.store.bytes());
        let changes = edit(&mut inner.store);
        let after = (inner.store.len(), inner.store.bytes());
        for change in &changes {
            for entry in inner.subscribers.values() {
                if let Some(change) = entry.filter.narrow(change) {
                    entry.subscriber.changed(&change);
                }
            }
        }
        drop(inner);
        self.metrics.cache_objects.get_or_create(&self.label).inc_by(difference(before.0, after.0));
        self.metrics.cache_bytes.get_or_create(&self.label).inc_by(difference(before.1, after.1));
        self.announce();
    }

    fn announce(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        self.metrics.cache_objects.get_or_create(&self.label).inc_by(difference(inner.store.len(), 0));
        self.metrics.cache_bytes.get_or_create(&self.label).inc_by(difference(inner.store.bytes(), 0));
        self.metrics.watch_streams.get_or_create(&self.label).dec();
    }
}

fn difference(before: usize, after: usize) -> i64 {
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    number(after).saturating_sub(number(before))
}
