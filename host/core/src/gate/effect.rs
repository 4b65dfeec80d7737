//! What an answer to a write says of the state that follows.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::object::{Labels, ObjectRef, ResourceVersion, json};
use crate::request::{ResourceRequest, Verb};

/// Labels of a written object that are kept, in bytes. Default 1 KiB: enough for every selector seen in practice; with
/// more, the object counts as one that every selector may match.
const MAX_LABELS: usize = 1 << 10;

/// A written object as its answer describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Namespace and name.
    pub object: ObjectRef,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub version: ResourceVersion,
    /// `metadata.labels`; None when they are unknown or too many to keep.
    pub labels: Option<Labels>,
}

/// What has to show in the cache after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: a dry run, a refusal, an answer without an object.
    Nothing,
    /// The object at this version or a newer one.
    Changed(Target),
    /// The object gone: the write removed its last finalizer and answers its old version.
    Removed(Target),
    /// The uid gone. The answer has no version, so it is hidden until then.
    Deleted {
        /// Namespace and name.
        object: ObjectRef,
        /// `metadata.uid`
        uid: Arc<str>,
    },
    /// Each object gone or terminating: the versions are older than the deletes.
    Collection(Vec<Target>),
    /// Not known whether the write happened.
    Unknown,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    details: Option<Details>,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
    uid: Option<Arc<str>>,
    resource_version: Option<Arc<str>>,
    #[serde(deserialize_with = "json::labels")]
    labels: Labels,
    deletion_timestamp: Option<IgnoredAny>,
    deletion_grace_period_seconds: Option<i64>,
    finalizers: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize, Default)]
struct Details {
    #[serde(default)]
    uid: Option<Arc<str>>,
}

/// Of a Namespace, which is kept until its own finalizers and those in its spec are gone.
#[derive(Deserialize, Default)]
struct NamespaceSpec {
    #[serde(default)]
    finalizers: Vec<IgnoredAny>,
}

impl Effect {
    /// Reads the answer to a write: its status code and its whole body.
    pub fn of(request: &ResourceRequest, dry_run: bool, code: u16, body: &[u8]) -> Self {
        if request.verb.is_read() || dry_run || !is_of_an_object(request) {
            return Self::Nothing;
        }
        match code {
            200..=299 => {}
            400..=499 => return Self::Nothing,
            _ => return Self::Unknown,
        }
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else {
            return Self::Unknown;
        };
        if let Some(items) = answer.items {
            return Self::Collection(items.into_iter().filter_map(|item| target(request, item.metadata)).collect());
        }
        if answer.kind.as_deref() == Some("Status") {
            return match (answer.details.and_then(|details| details.uid), &request.name) {
                (Some(uid), Some(name)) if request.verb == Verb::Delete => Self::Deleted {
                    object: ObjectRef {
                        namespace: request.namespace.as_deref().map(Arc::from),
                        name: name.as_str().into(),
                    },
                    uid,
                },
                // A deletecollection that found nothing, or a delete of something that has no uid.
                _ => Self::Nothing,
            };
        }
        let waits_for_contents = match (request.group.as_str(), request.plural.as_str()) {
            // Without the spec it is not known whether the Namespace waits for its contents.
            ("", "namespaces") => !answer
                .spec
                .and_then(|spec| serde_json::from_str::<NamespaceSpec>(spec.get()).ok())
                .is_some_and(|spec| spec.finalizers.is_empty()),
            _ => false,
        };
        let removed = answer.metadata.deletion_timestamp.is_some()
            && answer.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
            && answer.metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
            && !waits_for_contents;
        match target(request, answer.metadata) {
            Some(target) if removed => Self::Removed(target),
            Some(target) => Self::Changed(target),
            // A review, for example: nothing is stored.
            None => Self::Nothing,
        }
    }
}

/// Subresources whose answer is the object itself, or for `scale` carries the parent's uid and version.
fn is_of_an_object(request: &ResourceRequest) -> bool {
    matches!(request.subresource.as_deref(), None | Some("status" | "scale" | "finalize"))
}

fn target(request: &ResourceRequest, metadata: Metadata) -> Option<Target> {
    let filled = |text: &Arc<str>| !text.is_empty();
    let namespace = metadata.namespace.or_else(|| request.namespace.as_deref().map(Arc::from)).filter(filled);
    let labels = metadata.labels;
    let size: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    Some(Target {
        object: ObjectRef { namespace, name: metadata.name.filter(filled)? },
        uid: metadata.uid.filter(filled)?,
        version: ResourceVersion::new(&metadata.resource_version.filter(filled)?),
        // A Scale has no labels of its parent's.
        labels: (size <= MAX_LABELS && request.subresource.as_deref() != Some("scale")).then_some(labels),
    })
}
