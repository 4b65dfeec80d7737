//! Who is concerned by what happens in a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers by the namespaces that they are about, so that an event asks those of its own namespace and not a thousand others.
#[derive(Debug, Default)]
pub(crate) struct ByNamespace {
    /// Those that want every namespace.
    everywhere: BTreeSet<u64>,
    within: BTreeMap<Arc<str>, BTreeSet<u64>>,
}

impl ByNamespace {
    /// `namespaces` empty: all.
    pub(crate) fn add(&mut self, id: u64, namespaces: &BTreeSet<Arc<str>>) {
        if namespaces.is_empty() {
            self.everywhere.insert(id);
        }
        for namespace in namespaces {
            self.within.entry(namespace.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn remove(&mut self, id: u64, namespaces: &BTreeSet<Arc<str>>) {
        self.everywhere.remove(&id);
        for namespace in namespaces {
            if let Some(ids) = self.within.get_mut(namespace) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.within.remove(namespace);
                }
            }
        }
    }

    /// None: an object without a namespace.
    pub(crate) fn concerned(&self, namespace: Option<&Arc<str>>) -> impl Iterator<Item = &u64> {
        let near = namespace.and_then(|namespace| self.within.get(namespace));
        self.everywhere.iter().chain(near.into_iter().flatten())
    }
}
