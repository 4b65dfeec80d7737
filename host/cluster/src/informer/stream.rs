//! One upstream stream as its subscribers see it: the objects, and who hears of changes.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use wasm_operator_core::history::{Backlog, Expired};
use wasm_operator_core::object::{Change, Object, ObjectRef, ResourceVersion};

use super::audience::{Audience, Entry, Known};
use super::filter::Filter;
use super::followers::Followers;
use super::store::Store;
use super::watcher::{WatchEnd, Watcher};
use super::wire::{Event, Source};
use super::{ParkReason, Subscriber, SubscriptionState};
use crate::metrics::{EventLabels, Metrics, ResourceLabel, RestartLabels};

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchStart {
    /// With the objects that are there.
    Initial,
    /// After what the client has seen.
    After(ResourceVersion),
}

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
    audience: Audience,
    followers: Followers,
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
                audience: Audience::default(),
                followers: Followers::default(),
            }),
            metrics,
            label,
            moved: watch::channel(0).0,
        }
    }

    /// Adds a subscriber. It hears at once of the objects that are there, and of those that it `known` before and that are
    /// not there any more: at once, or when the first list is complete.
    pub(crate) fn attach(&self, filter: Arc<Filter>, subscriber: Arc<dyn Subscriber>, known: Known) -> u64 {
        let mut inner = self.inner.lock();
        let Inner { store, state, audience, .. } = &mut *inner;
        let mut entry = Entry { filter, subscriber, known };
        if state.has_objects() {
            entry.confirm(store);
        }
        for object in store.objects().filter(|object| entry.filter.selects(object)) {
            entry.subscriber.changed(&Change { old: None, new: Some(object.clone()), initial: true });
        }
        entry.subscriber.state(state);
        let id = audience.add(entry);
        self.metrics.watch_subscribers.get_or_create(&self.label).inc();
        id
    }

    /// Removes a subscriber and returns what it knows.
    pub(crate) fn detach(&self, id: u64) -> Known {
        let mut inner = self.inner.lock();
        let Some(Entry { filter, mut known, .. }) = inner.audience.remove(id) else { return Known::new() };
        self.metrics.watch_subscribers.get_or_create(&self.label).dec();
        let held = inner.store.objects().filter(|object| filter.selects(object));
        known.extend(held.map(|object| (object.object_ref(), object.clone())));
        known
    }

    pub(crate) fn get(&self, object: &ObjectRef, filter: &Filter) -> Option<Arc<Object>> {
        self.inner.lock().store.get(object).filter(|object| filter.selects(object)).cloned()
    }

    pub(crate) fn list(&self, mut selects: impl FnMut(&Object) -> bool) -> Vec<Arc<Object>> {
        self.inner.lock().store.objects().filter(|object| selects(object)).cloned().collect()
    }

    /// Reads one consistent state. Must be short: the stream waits meanwhile.
    pub(crate) fn read(&self, read: impl FnOnce(&Store, &SubscriptionState)) {
        let inner = self.inner.lock();
        read(&inner.store, &inner.state);
    }

    /// Begins a watch. `hidden` are uids of objects that the watcher itself deleted. None: the stream is no basis for one.
    pub(crate) fn watch(
        &self,
        filter: Arc<Filter>,
        start: &WatchStart,
        hidden: &HashSet<Arc<str>>,
    ) -> Option<Result<(u64, Arc<Watcher>), Expired>> {
        let mut inner = self.inner.lock();
        let Inner { store, state, followers, .. } = &mut *inner;
        let (true, Some(position), Some(history)) = (state.is_basis(), store.position(), followers.history()) else {
            return None;
        };
        let backlog = match start {
            WatchStart::Initial => {
                let is_told = |object: &&Arc<Object>| filter.selects(object) && !hidden.contains(&object.metadata.uid);
                let objects = store.objects().filter(is_told).cloned().collect();
                Backlog::starting_with(objects, position.clone())
            }
            WatchStart::After(version) => {
                let missed = match history.since(version) {
                    Ok(missed) => missed,
                    Err(expired) => return Some(Err(expired)),
                };
                let mut backlog = Backlog::after(version.clone());
                for entry in missed.filter_map(|entry| entry.narrow(|object| filter.selects(object))) {
                    backlog.push(&entry);
                }
                backlog
            }
        };
        let watcher = Arc::new(Watcher::new(filter, backlog));
        Some(Ok((followers.add(watcher.clone()), watcher)))
    }

    pub(crate) fn unwatch(&self, id: u64) {
        self.inner.lock().followers.remove(id);
    }

    /// Remembers from now on what a watch has to begin with.
    pub(crate) fn want_history(&self) {
        let mut inner = self.inner.lock();
        let Inner { store, state, followers, .. } = &mut *inner;
        followers.want_history(store.position().filter(|_| state.has_objects()));
    }

    /// The version for a bookmark of this watcher.
    pub(crate) fn bookmark(&self, watcher: &Watcher) -> Option<ResourceVersion> {
        let inner = self.inner.lock();
        watcher.bookmark(inner.store.position()?)
    }

    /// Ends the watch if its client has seen a version that this stream has not reached.
    pub(crate) fn expire_if_ahead(&self, watcher: &Watcher, version: &ResourceVersion) {
        let inner = self.inner.lock();
        if inner.store.position().is_none_or(|position| watcher.is_ahead_of(position))
            && let Some(expired) = inner.followers.expired(version)
        {
            watcher.end(WatchEnd::Expired(expired.to_string()));
        }
    }

    pub(crate) fn state(&self) -> SubscriptionState {
        self.inner.lock().state.clone()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.inner.lock().state.has_objects()
    }

    /// Whether the host was refused the last time.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.inner.lock().state, SubscriptionState::Parked { reason: ParkReason::HostForbidden, .. })
    }

    /// Wakes whenever something was received.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Takes one event of a watch.
    pub(crate) fn apply(&self, event: Event) {
        let labels = EventLabels { resource: self.label.resource.clone(), r#type: event.name() };
        self.metrics.watch_events.get_or_create(&labels).inc();
        let mut inner = self.inner.lock();
        let from = inner.store.position().cloned();
        match event {
            Event::Added(object) | Event::Modified(object) => {
                let version = object.metadata.resource_version.clone();
                let changes = self.update(&mut inner, |store| store.upsert(object));
                inner.followers.changed(changes, from.as_ref(), &version);
            }
            Event::Deleted(object) => {
                for change in self.update(&mut inner, |store| store.delete(&object).into_iter().collect()) {
                    inner.followers.deleted(change, object.metadata.resource_version.clone());
                }
            }
            Event::Bookmark { version, .. } => inner.store.advance(version),
            Event::Error { .. } => {}
        }
        drop(inner);
        self.announce();
    }

    /// Takes a whole list.
    pub(crate) fn replace(&self, listed: Vec<Arc<Object>>, position: ResourceVersion) {
        let mut inner = self.inner.lock();
        let initial = !inner.state.has_objects();
        if inner.store.is_older(&position) {
            for subscriber in inner.audience.subscribers() {
                subscriber.history_lost();
            }
        }
        let (from, to) = (inner.store.position().cloned(), position.clone());
        let changes = self.update(&mut inner, |store| store.replace(listed, position, initial));
        inner.followers.relisted(changes, from, &to);
        self.tell(&mut inner, SubscriptionState::Synced);
        drop(inner);
        self.announce();
    }

    /// The watch goes on where it was.
    pub(crate) fn resumed(&self) {
        self.tell(&mut self.inner.lock(), SubscriptionState::Synced);
        self.announce();
    }

    /// The kind is gone with all its objects.
    pub(crate) fn gone(&self) {
        let mut inner = self.inner.lock();
        let changes = self.update(&mut inner, Store::clear);
        let Inner { store, followers, .. } = &mut *inner;
        followers.gone(changes, store.position());
        drop(inner);
        self.interrupted(Some(ParkReason::NotServed));
    }

    /// Parks or restarts, without forgetting that there are objects.
    pub(crate) fn interrupted(&self, reason: Option<ParkReason>) {
        let mut inner = self.inner.lock();
        let has_objects = inner.state.has_objects();
        let state = match reason {
            Some(reason) => SubscriptionState::Parked { reason, has_objects },
            None if has_objects => SubscriptionState::Restarting,
            None => SubscriptionState::Syncing,
        };
        self.tell(&mut inner, state);
        drop(inner);
        self.announce();
    }

    fn tell(&self, inner: &mut Inner, state: SubscriptionState) {
        if inner.state == state {
            return;
        }
        inner.state = state;
        for subscriber in inner.audience.subscribers() {
            subscriber.state(&inner.state);
        }
    }

    pub(crate) fn count_restart(&self, cause: &'static str) {
        let labels = RestartLabels { resource: self.label.resource.clone(), cause };
        self.metrics.watch_restarts.get_or_create(&labels).inc();
    }

    /// Changes the store and tells the subscribers, which do not block: they only note what is to be done. Returns the
    /// changes if somebody follows them.
    fn update(&self, inner: &mut Inner, edit: impl FnOnce(&mut Store) -> Vec<Change>) -> Vec<Change> {
        let Inner { store, audience, followers, .. } = inner;
        let before = (store.len(), store.bytes());
        let changes = edit(store);
        audience.tell(&changes, store);
        self.metrics.cache_objects.get_or_create(&self.label).inc_by(difference(before.0, store.len()));
        self.metrics.cache_bytes.get_or_create(&self.label).inc_by(difference(before.1, store.bytes()));
        if followers.is_wanted() { changes } else { Vec::new() }
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

#[cfg(test)]
mod tests;
