//! Who hears of what happens on a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wasm_operator_core::object::{Change, Object, ObjectRef};

use super::Subscriber;
use super::filter::Filter;
use super::namespaces::ByNamespace;
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
    by_namespace: ByNamespace,
    /// Those whose `known` is not confirmed.
    unconfirmed: BTreeSet<u64>,
}

impl Audience {
    /// Returns the subscriber's number.
    pub(crate) fn add(&mut self, entry: Entry) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_namespace.add(id, entry.filter.namespaces());
        if !entry.known.is_empty() {
            self.unconfirmed.insert(id);
        }
        self.entries.insert(id, entry);
        id
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.unconfirmed.remove(&id);
        self.by_namespace.remove(id, entry.filter.namespaces());
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
            for id in self.by_namespace.concerned(namespace) {
                let Some(entry) = self.entries.get(id) else { continue };
                if let Some(change) = entry.filter.narrow(change) {
                    entry.subscriber.changed(&change);
                }
            }
        }
    }
}
