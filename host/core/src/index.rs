//! Which primaries name an object in one of their fields.

use std::collections::{BTreeSet, HashMap};

use crate::object::{Change, ObjectRef};

/// An index of primaries by the values of the fields that watches map by.
#[derive(Debug, Default)]
pub struct FieldIndex {
    paths: BTreeSet<String>,
    by_value: HashMap<(String, String), BTreeSet<ObjectRef>>,
}

impl FieldIndex {
    /// An index over these paths.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { paths: paths.into_iter().collect(), by_value: HashMap::new() }
    }

    /// Follows a change of a primary.
    pub fn update(&mut self, change: &Change) {
        for path in &self.paths {
            let value = |object: &Option<_>| object.as_ref().and_then(|object: &std::sync::Arc<crate::object::Object>| {
                Some((object.object_ref(), object.field(path)?))
            });
            let (old, new) = (value(&change.old), value(&change.new));
            if old == new {
                continue;
            }
            if let Some((primary, value)) = old {
                let key = (path.clone(), value);
                if let Some(primaries) = self.by_value.get_mut(&key) {
                    primaries.remove(&primary);
                    if primaries.is_empty() {
                        self.by_value.remove(&key);
                    }
                }
            }
            if let Some((primary, value)) = new {
                self.by_value.entry((path.clone(), value)).or_default().insert(primary);
            }
        }
    }

    /// The primaries whose field at `path` has this value.
    pub fn primaries(&self, path: &str, value: &str) -> impl Iterator<Item = &ObjectRef> {
        self.by_value.get(&(path.to_owned(), value.to_owned())).into_iter().flatten()
    }
}
