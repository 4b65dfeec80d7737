//! Which primaries name an object in one of their fields.

use std::collections::{BTreeSet, HashMap};

use crate::object::{Change, ObjectRef};

/// An index of primaries by the values of the fields that watches map by.
#[derive(Debug, Default)]
pub struct FieldIndex {
    fields: HashMap<String, Field>,
}

/// One path in both directions: what an earlier change said is replaced, whatever the later one knows of it.
#[derive(Debug, Default)]
struct Field {
    by_value: HashMap<String, BTreeSet<ObjectRef>>,
    values: HashMap<ObjectRef, String>,
}

impl FieldIndex {
    /// An index over these paths.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { fields: paths.into_iter().map(|path| (path, Field::default())).collect() }
    }

    /// Follows a change of a primary.
    pub fn update(&mut self, change: &Change) {
        let Some(primary) = change.latest().map(|object| object.object_ref()) else { return };
        for (path, field) in &mut self.fields {
            field.set(&primary, change.new.as_ref().and_then(|object| object.field(path)));
        }
    }

    /// The primaries whose field at `path` has this value.
    pub fn primaries(&self, path: &str, value: &str) -> impl Iterator<Item = &ObjectRef> {
        self.fields.get(path).and_then(|field| field.by_value.get(value)).into_iter().flatten()
    }
}

impl Field {
    fn set(&mut self, primary: &ObjectRef, value: Option<String>) {
        if self.values.get(primary) == value.as_ref() {
            return;
        }
        if let Some(old) = self.values.remove(primary)
            && let Some(primaries) = self.by_value.get_mut(&old)
        {
            primaries.remove(primary);
            if primaries.is_empty() {
                self.by_value.remove(&old);
            }
        }
        if let Some(value) = value {
            self.by_value.entry(value.clone()).or_default().insert(primary.clone());
            self.values.insert(primary.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::object::Object;
    use crate::watch::Resource;

    const PATH: &str = ".spec.ref";

    fn primary(name: &str, value: &str) -> Arc<Object> {
        let resource = Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() };
        let json = format!(r#"{{"metadata":{{"name":"{name}","uid":"{name}"}},"spec":{{"ref":{value}}}}}"#);
        Arc::new(Object::parse(json.as_bytes(), &resource).unwrap())
    }

    fn found(index: &FieldIndex, value: &str) -> Vec<String> {
        index.primaries(PATH, value).map(ToString::to_string).collect()
    }

    #[test]
    fn primaries_are_found_by_the_present_value_only() {
        let mut index = FieldIndex::new([PATH.to_owned()]);
        let change = |old: Option<Arc<Object>>, new| Change { old, new, initial: false };
        index.update(&change(None, Some(primary("a", "\"x\""))));
        index.update(&change(None, Some(primary("b", "\"x\""))));
        assert_eq!(found(&index, "x"), ["a", "b"]);
        index.update(&change(Some(primary("a", "\"x\"")), Some(primary("a", "\"y\""))));
        assert_eq!((found(&index, "x"), found(&index, "y")), (vec!["b".to_owned()], vec!["a".to_owned()]));
        index.update(&change(Some(primary("a", "\"y\"")), None));
        index.update(&change(Some(primary("b", "\"x\"")), Some(primary("b", "null"))));
        assert!(found(&index, "x").is_empty() && found(&index, "y").is_empty());
        let field = &index.fields[PATH];
        assert!(field.by_value.is_empty() && field.values.is_empty());
    }

    #[test]
    fn an_object_that_is_told_anew_replaces_what_was_known_of_it() {
        let mut index = FieldIndex::new([PATH.to_owned()]);
        for value in ["\"x\"", "\"y\""] {
            index.update(&Change { old: None, new: Some(primary("a", value)), initial: true });
        }
        assert!(found(&index, "x").is_empty());
        assert_eq!(found(&index, "y"), ["a"]);
    }
}
