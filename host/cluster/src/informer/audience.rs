//! Who hears of what happens on a stream.
//!
//! Most guests watch a namespace or a few, so an event asks those of its own namespace and not a thousand others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wasm_operator_core::object::{Change, Object, ObjectRef};

use super::Subscriber;
use super::filter::Filter;
use super::store::Store;

/// What a subscriber knows.
pub(crate) type Known = BTreeMap<ObjectRef, Arc<Object>>;

/// One subscriber, and the part of the stream that it is about.
pub(crate) struct Entry {
    pub(crate) filter: Arc<Filter>,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    /// What it knew before it came, as long as the stream cannot tell whether it still exists.
    pub(crate) known: Known,
}

impl Entry {
    /// Tells the subscriber which of the objects that it knew before it came do not exist any more.
    pub(crate) fn confirm(&mut self, store: &Store) {
        for (key, old) in std::mem::take(&mut self.known) {
            let is_there =
                |object: &Arc<Object>| object.metadata.uid == old.metadata.uid && self.filter.selects(object);
            if !store.get(&key).is_some_and(is_there) {
                self.subscriber.changed(&Change { old: Some(old), new: None, initial: false });
            }
        }
    }
}

/// The subscribers of a stream, by the order in which they came.
#[derive(Default)]
pub(crate) struct Audience {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Those that want every namespace.
    everywhere: BTreeSet<u64>,
    by_namespace: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// Those whose `known` is not confirmed.
    unconfirmed: BTreeSet<u64>,
}

impl Audience {
    /// Returns the subscriber's number.
    pub(crate) fn add(&mut self, entry: Entry) -> u64 {
        let id = self.next;
        self.next += 1;
        if entry.filter.namespaces().is_empty() {
            self.everywhere.insert(id);
        }
        for namespace in entry.filter.namespaces() {
            self.by_namespace.entry(namespace.clone()).or_default().insert(id);
        }
        if !entry.known.is_empty() {
            self.unconfirmed.insert(id);
        }
        self.entries.insert(id, entry);
        id
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.everywhere.remove(&id);
        self.unconfirmed.remove(&id);
        for namespace in entry.filter.namespaces() {
            if let Some(ids) = self.by_namespace.get_mut(namespace) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_namespace.remove(namespace);
                }
            }
        }
        Some(entry)
    }

    pub(crate) fn subscribers(&self) -> impl Iterator<Item = &Arc<dyn Subscriber>> {
        self.entries.values().map(|entry| &entry.subscriber)
    }

    /// Tells everybody of what is in their part. Those who knew objects before they came hear first which are gone.
    pub(crate) fn tell(&mut self, changes: &[Change], store: &Store) {
        for id in std::mem::take(&mut self.unconfirmed) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.confirm(store);
            }
        }
        for change in changes {
            // An object never changes its namespace.
            let namespace = change.latest().and_then(|object| object.metadata.namespace.as_ref());
            let near = namespace.and_then(|namespace| self.by_namespace.get(namespace));
            for id in self.everywhere.iter().chain(near.into_iter().flatten()) {
                let Some(entry) = self.entries.get(id) else { continue };
                if let Some(change) = entry.filter.narrow(change) {
                    entry.subscriber.changed(&change);
                }
            }
        }
    }
}
