//! Names of objects, and objects as the caches hold them: metadata parsed, the rest as the server's JSON.

pub(crate) mod json;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use litemap::LiteMap;
use serde::Deserialize;

use crate::watch::Resource;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// None for a cluster-scoped object.
    pub namespace: Option<Arc<str>>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// An opaque version. Versions of one resource can be compared as decimal numbers (KEP-5504).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ResourceVersion(Box<str>);

impl ResourceVersion {
    /// Any text; what is not a decimal number cannot be compared.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As the server wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which is newer; None if that cannot be known. Equal text is equal, whatever it is.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.0 == other.0 {
            return Some(Ordering::Equal);
        }
        let both = is_version(&self.0) && is_version(&other.0);
        both.then(|| self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0)))
    }

    /// The version before this one. None for the first, and for what is not a number of 64 bits as etcd has them.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        let number: u64 = is_version(&self.0).then(|| self.0.parse().ok())??;
        (number > 1).then(|| Self((number - 1).to_string().into()))
    }

    /// Whether this is known to be `other` or newer.
    #[must_use]
    pub fn is_at_least(&self, other: &Self) -> bool {
        self.compare(other).is_some_and(Ordering::is_ge)
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Labels or annotations: sorted pairs in one piece. A B-tree has room for eleven where most objects have a few.
pub type Labels = LiteMap<Box<str>, Box<str>>;

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// `group/version`, or `version` for the core group.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the object's namespace or cluster-scoped.
    pub name: Arc<str>,
    /// Uid of the owner.
    pub uid: Arc<str>,
    /// Whether it is the managing controller.
    #[serde(default)]
    pub controller: bool,
}

impl OwnerReference {
    /// The group in `api_version`, empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// The parts of `metadata` that the host itself uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Option<Arc<str>>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    #[serde(deserialize_with = "json::resource_version")]
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
    /// `metadata.generation`; kinds that do not count have none.
    pub generation: Option<i64>,
    /// `metadata.labels`.
    #[serde(deserialize_with = "json::labels")]
    pub labels: Labels,
    /// `metadata.annotations`.
    #[serde(deserialize_with = "json::labels")]
    pub annotations: Labels,
    /// `metadata.finalizers`.
    #[serde(deserialize_with = "json::null_default")]
    pub finalizers: Vec<Box<str>>,
    /// `metadata.ownerReferences`.
    #[serde(deserialize_with = "json::null_default")]
    pub owner_references: Vec<OwnerReference>,
    /// `metadata.deletionTimestamp`.
    pub deletion_timestamp: Option<Box<str>>,
    /// `metadata.deletionGracePeriodSeconds`.
    pub deletion_grace_period_seconds: Option<i64>,
}

/// An object as it is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Parsed.
    pub metadata: Metadata,
    /// The object as JSON: what the server sent, unknown fields included, without managed fields and with `apiVersion` and
    /// `kind`.
    pub json: Arc<[u8]>,
}

/// The server sent something that is not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON, or a field has another type than Kubernetes gives it.
    #[error("not a Kubernetes object: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Objects without these cannot be told apart.
    #[error("not a Kubernetes object: `metadata.{0}` is missing")]
    Missing(&'static str),
}

impl Object {
    /// Reads an object. `resource` gives `apiVersion` and `kind` where the JSON has none, as in lists of built-in kinds.
    pub fn parse(json: &[u8], resource: &Resource) -> Result<Self, ObjectError> {
        let (metadata, json) = json::normalise(json, resource)?;
        if metadata.name.is_empty() {
            return Err(ObjectError::Missing("name"));
        }
        if metadata.uid.is_empty() {
            return Err(ObjectError::Missing("uid"));
        }
        Ok(Self { metadata, json: json.into() })
    }

    /// Its namespace and name.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// The value at a path such as `.spec.type`: a string's text, or a number or boolean as JSON writes it. None if there
    /// is nothing, or an object or array.
    #[must_use]
    pub fn field(&self, path: &str) -> Option<String> {
        json::field(&self.json, path)
    }

    /// Its JSON with another `metadata.resourceVersion`, as a deletion shows it.
    pub fn json_at(&self, version: &ResourceVersion) -> Result<Vec<u8>, ObjectError> {
        json::with_version(&self.json, version)
    }

    /// The value of `metadata` as JSON.
    #[must_use]
    pub fn metadata_json(&self) -> Arc<[u8]> {
        metadata_json(&self.json).into()
    }
}

/// The value of `metadata` in an object's JSON.
#[must_use]
pub fn metadata_json(json: &[u8]) -> &[u8] {
    json::member(json, "metadata").map_or(b"{}", str::as_bytes)
}

/// One object before and after a change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Before; None if it is new to the observer.
    pub old: Option<Arc<Object>>,
    /// After; None if it is gone for the observer.
    pub new: Option<Arc<Object>>,
    /// It was there when the watch began.
    pub initial: bool,
}

impl Change {
    /// The newest known state.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<Object>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

#[cfg(test)]
mod tests;
