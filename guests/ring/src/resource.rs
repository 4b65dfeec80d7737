//! The benchmark's resource, and the rule by which it travels.

use std::fmt;

use kube::core::ObjectMeta;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The annotation that says where a lap began, so that it ends there: [`Origin`] as text.
pub const ORIGIN: &str = "ring.wasm-operator.dev/origin";

/// What travels round the ring.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ring.wasm-operator.dev",
    version = "v1",
    kind = "TestResource",
    plural = "testresources",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name": "Nonce", "type": "integer", "jsonPath": ".spec.nonce"}"#,
    printcolumn = r#"{"name": "Updated", "type": "string", "jsonPath": ".spec.updatedAt"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TestResourceSpec {
    /// The number of the lap. Begin each lap with a larger one.
    pub nonce: i64,
    /// When the lap began, as whoever began it wrote it. It is passed on as it is.
    #[serde(default)]
    pub updated_at: String,
}

/// Where a lap began: it is over when the next namespace is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The namespace that the nonce was first written to.
    pub namespace: String,
    /// The lap. An origin of another lap says nothing about this one.
    pub nonce: i64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.nonce)
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (namespace, nonce) = text.split_once('/')?;
        Some(Self { namespace: namespace.to_owned(), nonce: nonce.parse().ok()? })
    }
}

impl TestResource {
    /// Where this object's lap began: here, unless the guest before us passed this very nonce on.
    fn origin(&self) -> Origin {
        let carried = self.annotations().get(ORIGIN).and_then(|text| Origin::parse(text));
        carried
            .filter(|origin| origin.nonce == self.spec.nonce)
            .unwrap_or_else(|| Origin { namespace: self.namespace().unwrap_or_default(), nonce: self.spec.nonce })
    }

    /// The object to write into the next namespace under the same name, `None` when the lap is over.
    ///
    /// It depends on this object alone: writing it again, after a restart or an error, changes nothing.
    pub(crate) fn next(&self, out_namespace: &str) -> Option<Self> {
        let origin = self.origin();
        (origin.namespace != out_namespace).then(|| Self {
            metadata: ObjectMeta {
                name: self.metadata.name.clone(),
                namespace: Some(out_namespace.to_owned()),
                annotations: Some([(ORIGIN.to_owned(), origin.to_string())].into()),
                ..ObjectMeta::default()
            },
            spec: self.spec.clone(),
        })
    }

    /// The object to write over the one that is there, `None` when that is this one already or a newer one.
    pub(crate) fn over(&self, mut there: Self) -> Option<Self> {
        let origin = |object: &Self| object.annotations().get(ORIGIN).cloned();
        let done = there.spec == self.spec && origin(&there) == origin(self);
        if done || there.spec.nonce > self.spec.nonce {
            return None;
        }
        there.annotations_mut().extend(self.annotations().clone());
        there.spec = self.spec.clone();
        Some(there)
    }
}

#[cfg(test)]
mod tests;
