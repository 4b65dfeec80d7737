//! The watches that guests hold open on a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use wasm_operator_core::history::{Backlog, Entry, Gap, Item};
use wasm_operator_core::object::ResourceVersion;

use super::filter::Filter;
use super::namespaces::ByNamespace;

/// Why a watch ended on the host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEnd {
    /// The client may open it again where it was.
    Closed,
    /// The version cannot be resumed from: the client lists anew.
    Expired(String),
    /// The right to it ended.
    Forbidden(String),
}

/// What comes next of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Item(Item),
    /// After everything that happened before it.
    End(WatchEnd),
    /// Nothing for now.
    Nothing,
}

/// One watch: what it has not delivered, and who is to be woken when there is more.
pub(crate) struct Watcher {
    filter: Arc<Filter>,
    inner: Mutex<Inner>,
    waker: AtomicWaker,
}

struct Inner {
    backlog: Backlog,
    end: Option<WatchEnd>,
}

impl Watcher {
    pub(crate) fn new(filter: Arc<Filter>, backlog: Backlog) -> Self {
        Self { filter, inner: Mutex::new(Inner { backlog, end: None }), waker: AtomicWaker::new() }
    }

    fn push(&self, entry: &Entry) {
        let Some(entry) = entry.narrow(|object| self.filter.selects(object)) else { return };
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.backlog.push(&entry);
            drop(inner);
            self.waker.wake();
        }
    }

    /// Ends it. What it would still have delivered is left out where the client begins anew or has no right to it.
    pub(crate) fn end(&self, end: WatchEnd) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return;
        }
        if end != WatchEnd::Closed {
            inner.backlog.clear();
        }
        inner.end = Some(end);
        drop(inner);
        self.waker.wake();
    }

    /// Takes what comes next. `waker` is woken when there is more than nothing.
    pub(crate) fn next(&self, waker: &Waker) -> Next {
        // Registered first, so that nothing is missed in between.
        self.waker.register(waker);
        let mut inner = self.inner.lock();
        match (inner.backlog.take(), &inner.end) {
            (Some(item), _) => Next::Item(item),
            (None, Some(end)) => Next::End(end.clone()),
            (None, None) => Next::Nothing,
        }
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn bookmark(&self, position: &ResourceVersion) -> Option<ResourceVersion> {
        self.inner.lock().backlog.bookmark(position)
    }

    /// Whether the client has seen a version that the stream has not reached.
    pub(crate) fn is_ahead_of(&self, position: &ResourceVersion) -> bool {
        self.inner.lock().backlog.is_ahead_of(position)
    }

    pub(crate) fn take_compacted(&self) -> u64 {
        self.inner.lock().backlog.take_compacted()
    }
}

/// All watches of a stream.
#[derive(Default)]
pub(crate) struct Watchers {
    all: BTreeMap<u64, Arc<Watcher>>,
    next: u64,
    by_namespace: ByNamespace,
}

impl Watchers {
    pub(crate) fn add(&mut self, watcher: Arc<Watcher>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_namespace.add(id, watcher.filter.namespaces());
        self.all.insert(id, watcher);
        id
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(watcher) = self.all.remove(&id) {
            self.by_namespace.remove(id, watcher.filter.namespaces());
        }
    }

    pub(crate) fn tell(&self, entries: &[Entry]) {
        for entry in entries {
            let latest = entry.new.as_ref().or(entry.old.as_ref());
            let namespace = latest.and_then(|object| object.metadata.namespace.as_ref());
            for id in self.by_namespace.concerned(namespace) {
                if let Some(watcher) = self.all.get(id) {
                    watcher.push(entry);
                }
            }
        }
    }

    /// Ends the watches of those who have seen something that this gap hides.
    pub(crate) fn expire_within(&self, gap: &Gap, why: impl Fn() -> String) {
        for watcher in self.all.values() {
            if watcher.inner.lock().backlog.is_within(gap) {
                watcher.end(WatchEnd::Expired(why()));
            }
        }
    }

    pub(crate) fn end(&self, end: &WatchEnd) {
        for watcher in self.all.values() {
            watcher.end(end.clone());
        }
    }
}
