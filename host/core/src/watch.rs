//! Watches as a guest declares them: which changes pass, and which primaries they lead to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::index::FieldIndex;
use crate::object::{Change, Object, ObjectRef};
use crate::request::path::{is_label, is_subdomain};
use crate::selector::{FieldSelector, LabelSelector, SelectorError, is_label_key};

/// A kind of object as the API server names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Kind, such as `ConfigMap`.
    pub kind: String,
    /// Lower-case plural, the name in request paths.
    pub plural: String,
}

/// What the cache holds of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Representation {
    /// `metadata` without managed fields.
    Metadata,
    /// The whole object without managed fields.
    Full,
}

/// Group and kind without a version, as owner references are matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupKind {
    /// API group, empty for the core group.
    pub group: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
}

/// How a changed object becomes the key of a primary object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mapping {
    /// The object is the primary.
    Object,
    /// The controller owner of this kind.
    Owner(GroupKind),
    /// The value of this label names the primary.
    Label(String),
    /// The value of this annotation names the primary, as `name` or `namespace/name`.
    Annotation(String),
    /// Every primary whose field at this path holds the object's name.
    Field(String),
    /// No key: kept for cached reads.
    Nothing,
}

/// Parts of an object whose change matters. None set: any change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parts {
    /// `metadata.generation`; also passes on deletion timestamp and finalizers, and for kinds without a generation.
    pub generation: bool,
    /// `metadata.labels`.
    pub labels: bool,
    /// `metadata.annotations`.
    pub annotations: bool,
    /// `metadata.finalizers`.
    pub finalizers: bool,
}

/// A field that must have this value before or after the change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldValue {
    /// A path such as `.spec.type`.
    pub path: String,
    /// The value as text.
    pub value: String,
}

/// One watch of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// What is watched.
    pub of: Resource,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespaces: Vec<String>,
    /// In the syntax of the Kubernetes API; empty for everything.
    pub label_selector: String,
    /// In the syntax of the Kubernetes API; empty for everything.
    pub field_selector: String,
    /// What the cache holds.
    pub representation: Representation,
    /// How a change becomes a key.
    pub mapping: Mapping,
    /// Which changes pass.
    pub changed: Parts,
    /// Which objects pass: all of these fields match.
    pub having: Vec<FieldValue>,
}

impl Resource {
    /// `group/version`, or `version` for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection, cluster-wide or in a namespace, without query.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let version = self.api_version();
        match namespace {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{version}/{}", self.plural),
        }
    }
}

impl fmt::Display for Resource {
    /// `plural` or `plural.group`, as kubectl takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// A watch that cannot be served. For the guest's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWatch {
    /// A word that cannot be what it stands for.
    #[error("`{value}` is not {expected}")]
    Malformed {
        /// The word.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A selector that cannot be parsed.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A primary is its own key.
    #[error("the primary watch of `{0}` must map to the object itself")]
    PrimaryMapping(String),
    /// The host indexes fields of whole objects only.
    #[error("a watch maps by the field `{0}` of the primary, so the primary's watch must be `full`")]
    FieldNeedsFull(String),
    /// A field of something that is only metadata.
    #[error("`{0}` is not a field of metadata, so the watch must be `full`")]
    HavingNeedsFull(String),
}

/// A primary that a change leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapped {
    /// The primary.
    pub object: ObjectRef,
    /// The uid that the primary has if it is the one that was meant; None if any will do.
    pub uid: Option<Arc<str>>,
}

/// What mapping needs to know of the controller.
#[derive(Debug, Clone, Copy)]
pub struct Primaries<'a> {
    /// Whether the primary kind has namespaces.
    pub namespaced: bool,
    /// Whether labels and annotations may name primaries of other namespaces.
    pub cross_namespace: bool,
    /// By field.
    pub index: &'a FieldIndex,
}

/// Checks the watches of one controller, each by itself and all together.
pub fn validate_controller(primary: &Watch, watches: &[Watch]) -> Result<(), InvalidWatch> {
    primary.validate()?;
    if primary.mapping != Mapping::Object {
        return Err(InvalidWatch::PrimaryMapping(primary.of.to_string()));
    }
    for watch in watches {
        watch.validate()?;
        if let Mapping::Field(path) = &watch.mapping
            && primary.representation == Representation::Metadata
            && !path.starts_with(".metadata.")
        {
            return Err(InvalidWatch::FieldNeedsFull(path.clone()));
        }
    }
    Ok(())
}

fn is_kind(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Watch {
    /// Checks every word.
    pub fn validate(&self) -> Result<(), InvalidWatch> {
        let check = |ok: bool, value: &str, expected: &'static str| {
            if ok { Ok(()) } else { Err(InvalidWatch::Malformed { value: value.chars().take(64).collect(), expected }) }
        };
        check(self.of.group.is_empty() || is_subdomain(&self.of.group), &self.of.group, "an API group")?;
        check(is_label(&self.of.version), &self.of.version, "an API version")?;
        check(is_label(&self.of.plural), &self.of.plural, "a lower-case plural")?;
        check(is_kind(&self.of.kind), &self.of.kind, "a kind")?;
        for namespace in &self.namespaces {
            check(is_label(namespace), namespace, "a namespace")?;
        }
        LabelSelector::parse(&self.label_selector)?;
        FieldSelector::parse(&self.field_selector)?;
        match &self.mapping {
            Mapping::Owner(owner) => {
                check(owner.group.is_empty() || is_subdomain(&owner.group), &owner.group, "an API group")?;
                check(is_kind(&owner.kind), &owner.kind, "a kind")?;
            }
            Mapping::Label(key) => check(is_label_key(key), key, "a label key")?,
            Mapping::Annotation(key) => check(is_label_key(key), key, "an annotation key")?,
            Mapping::Object | Mapping::Field(_) | Mapping::Nothing => {}
        }
        let paths = self.having.iter().map(|having| &having.path);
        let mapped = if let Mapping::Field(path) = &self.mapping { Some(path) } else { None };
        for path in paths.clone().chain(mapped) {
            check(
                path.starts_with('.') && path.len() > 1 && !path.contains(".."),
                path,
                "a path such as `.spec.type`",
            )?;
        }
        for path in paths {
            if self.representation == Representation::Metadata && !path.starts_with(".metadata.") {
                return Err(InvalidWatch::HavingNeedsFull(path.clone()));
            }
        }
        Ok(())
    }

    /// Whether the change passes the predicates. Added and deleted objects pass `changed` whatever it lists.
    #[must_use]
    pub fn passes(&self, change: &Change) -> bool {
        self.has_fields(change)
            && match (&change.old, &change.new) {
                (Some(old), Some(new)) if old.metadata.uid == new.metadata.uid => self.changed.differ(old, new),
                _ => true,
            }
    }

    fn has_fields(&self, change: &Change) -> bool {
        let has = |object: &Object| {
            self.having.iter().all(|having| object.field(&having.path).as_deref() == Some(having.value.as_str()))
        };
        self.having.is_empty() || [&change.old, &change.new].into_iter().flatten().any(|object| has(object))
    }

    /// The primaries that the change leads to, from the object before and after it, so that both ends of a move are seen.
    #[must_use]
    pub fn keys(&self, change: &Change, primaries: Primaries<'_>) -> BTreeSet<Mapped> {
        let mut keys = BTreeSet::new();
        for object in [&change.old, &change.new].into_iter().flatten() {
            self.map(object, primaries, &mut keys);
        }
        keys
    }

    fn map(&self, object: &Object, primaries: Primaries<'_>, keys: &mut BTreeSet<Mapped>) {
        let metadata = &object.metadata;
        let home = || if primaries.namespaced { metadata.namespace.clone() } else { None };
        // A cluster-scoped object has no namespace in which a namespaced primary could be.
        let reachable = !primaries.namespaced || metadata.namespace.is_some();
        match &self.mapping {
            Mapping::Object => {
                keys.insert(Mapped { object: object.object_ref(), uid: None });
            }
            Mapping::Owner(owner) => {
                let owned_by = metadata
                    .owner_references
                    .iter()
                    .find(|r| r.controller && r.kind == owner.kind && r.group() == owner.group);
                if let Some(reference) = owned_by.filter(|_| reachable) {
                    let object = ObjectRef { namespace: home(), name: reference.name.clone() };
                    keys.insert(Mapped { object, uid: Some(reference.uid.clone()) });
                }
            }
            Mapping::Label(label) => {
                if let Some(name) = metadata.labels.get(label.as_str()).filter(|name| reachable && !name.is_empty()) {
                    let object = ObjectRef { namespace: home(), name: Arc::from(&**name) };
                    keys.insert(Mapped { object, uid: None });
                }
            }
            Mapping::Annotation(annotation) => {
                let value = metadata.annotations.get(annotation.as_str());
                if let Some(object) = value.and_then(|value| named(value, metadata.namespace.as_deref(), primaries)) {
                    keys.insert(Mapped { object, uid: None });
                }
            }
            Mapping::Field(path) => {
                let near = |primary: &&ObjectRef| {
                    primaries.cross_namespace
                        || primary.namespace.is_none()
                        || metadata.namespace.is_none()
                        || primary.namespace == metadata.namespace
                };
                let found = primaries.index.primaries(path, &metadata.name).filter(near);
                keys.extend(found.map(|primary| Mapped { object: primary.clone(), uid: None }));
            }
            Mapping::Nothing => {}
        }
    }
}

/// The primary that an annotation names. It stays in the source's namespace unless the administrator allows more.
fn named(value: &str, source: Option<&str>, primaries: Primaries<'_>) -> Option<ObjectRef> {
    let (namespace, name) = match value.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (source, value),
    };
    if name.is_empty() || name.contains('/') {
        return None;
    }
    if !primaries.namespaced {
        let plain = namespace == source;
        return plain.then(|| ObjectRef { namespace: None, name: name.into() });
    }
    let namespace = namespace?;
    let allowed = primaries.cross_namespace || source == Some(namespace);
    allowed.then(|| ObjectRef { namespace: Some(namespace.into()), name: name.into() })
}

impl Parts {
    fn differ(self, old: &Object, new: &Object) -> bool {
        let Self { generation, labels, annotations, finalizers } = self;
        if !(generation || labels || annotations || finalizers) {
            return true;
        }
        let (old, new) = (&old.metadata, &new.metadata);
        let finalizers_differ = old.finalizers != new.finalizers;
        let deletion = old.deletion_timestamp != new.deletion_timestamp;
        let counted = new.generation.is_none() || old.generation != new.generation;
        generation && (counted || finalizers_differ || deletion)
            || labels && old.labels != new.labels
            || annotations && old.annotations != new.annotations
            || finalizers && (finalizers_differ || deletion)
    }
}

#[cfg(test)]
mod tests;
