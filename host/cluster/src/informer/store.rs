//! The objects of one stream, and what each event means for an observer. Pure: events in, changes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasm_operator_core::object::{Change, Object, ObjectRef, ResourceVersion};

/// What a stream holds.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<ObjectRef, Arc<Object>>,
    bytes: usize,
    /// The version of the last event, bookmark or list.
    position: Option<ResourceVersion>,
}

impl Store {
    pub(crate) fn get(&self, object: &ObjectRef) -> Option<&Arc<Object>> {
        self.objects.get(object)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn position(&self) -> Option<&ResourceVersion> {
        self.position.as_ref()
    }

    /// A bookmark: nothing changed up to this version.
    pub(crate) fn advance(&mut self, position: ResourceVersion) {
        self.position = Some(position);
    }

    /// An object was added or modified. An object of the same name with another uid was deleted before, unseen.
    pub(crate) fn upsert(&mut self, object: Arc<Object>) -> Vec<Change> {
        self.position = Some(object.metadata.resource_version.clone());
        self.put(object, false)
    }

    /// An object was deleted; `object` is its last state, with the version of the deletion.
    pub(crate) fn delete(&mut self, object: &Object) -> Option<Change> {
        self.position = Some(object.metadata.resource_version.clone());
        let old = self.remove(&object.object_ref())?;
        Some(Change { old: Some(old), new: None, initial: false })
    }

    /// Whether versions went back, as after a restored backup: then versions from before mean nothing any more.
    pub(crate) fn is_older(&self, position: &ResourceVersion) -> bool {
        self.position.as_ref().is_some_and(|old| position.compare(old).is_some_and(std::cmp::Ordering::is_lt))
    }

    /// A list replaces everything: what vanished was deleted, what has the same uid and version did not change. When
    /// versions went back, the server gives them a second time, so then they do not tell.
    pub(crate) fn replace(
        &mut self,
        listed: Vec<Arc<Object>>,
        position: ResourceVersion,
        initial: bool,
    ) -> Vec<Change> {
        let is_older = self.is_older(&position);
        let listed: BTreeMap<ObjectRef, Arc<Object>> =
            listed.into_iter().map(|object| (object.object_ref(), object)).collect();
        let vanished: Vec<ObjectRef> =
            self.objects.keys().filter(|object| !listed.contains_key(*object)).cloned().collect();
        let mut changes = Vec::new();
        for object in vanished {
            changes.extend(self.remove(&object).map(|old| Change { old: Some(old), new: None, initial: false }));
        }
        for (key, object) in listed {
            let known = self.objects.get(&key).is_some_and(|old| {
                old.metadata.uid == object.metadata.uid
                    && old.metadata.resource_version == object.metadata.resource_version
                    && (!is_older || old.json == object.json)
            });
            if !known {
                changes.extend(self.put(object, initial));
            }
        }
        self.position = Some(position);
        changes
    }

    /// The kind is gone, and everything of it.
    pub(crate) fn clear(&mut self) -> Vec<Change> {
        let all: Vec<ObjectRef> = self.objects.keys().cloned().collect();
        all.iter()
            .filter_map(|object| self.remove(object))
            .map(|old| Change { old: Some(old), new: None, initial: false })
            .collect()
    }

    fn put(&mut self, object: Arc<Object>, initial: bool) -> Vec<Change> {
        let key = object.object_ref();
        let old = self.remove(&key);
        self.bytes += object.json.len();
        self.objects.insert(key, object.clone());
        match old {
            Some(old) if old.metadata.uid != object.metadata.uid => vec![
                Change { old: Some(old), new: None, initial: false },
                Change { old: None, new: Some(object), initial: false },
            ],
            Some(old) => vec![Change { old: Some(old), new: Some(object), initial: false }],
            None => vec![Change { old: None, new: Some(object), initial }],
        }
    }

    fn remove(&mut self, key: &ObjectRef) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        self.bytes = self.bytes.saturating_sub(old.json.len());
        Some(old)
    }
}

#[cfg(test)]
mod tests;
