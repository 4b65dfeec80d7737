//! The benchmark's resource, and the rule by which it travels.

use std::fmt;

use kube::core::{ObjectMeta, Status};
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
    /// The number of the lap. It never goes back: the API server refuses a smaller one.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= oldSelf",
        "message": "the nonce never goes back"
    }]))]
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
}

/// Whether a write was refused because the object already has a newer nonce.
pub(crate) fn is_newer_there(status: &Status) -> bool {
    status.code == 422
        && status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.field == "spec.nonce"))
}

#[cfg(test)]
mod tests;
