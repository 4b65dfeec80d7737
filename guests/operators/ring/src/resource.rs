//! The benchmark's resource, and the rule by which it travels: that of `guests/ring`.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
use kube::{CustomResource, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The annotation that says where a lap began, so that it ends there: `<namespace>/<nonce>`.
const ORIGIN: &str = "ring.wasm-operator.dev/origin";

/// What travels round the ring.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ring.wasm-operator.dev",
    version = "v1",
    kind = "TestResource",
    plural = "testresources",
    namespaced,
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestResourceSpec {
    pub(crate) nonce: i64,
    #[serde(default)]
    pub(crate) updated_at: String,
}

impl TestResource {
    fn origin(&self) -> String {
        let carried = self.annotations().get(ORIGIN);
        let about_this = |origin: &&String| origin.ends_with(&format!("/{}", self.spec.nonce));
        carried
            .filter(about_this)
            .cloned()
            .unwrap_or_else(|| format!("{}/{}", self.namespace().unwrap_or_default(), self.spec.nonce))
    }

    /// What is to be written into the namespace `out`, where `there` is: over it, or anew. None: nothing.
    pub(crate) fn passed_on(&self, out: &str, there: Option<&Self>) -> Option<Self> {
        let origin = self.origin();
        if origin.split('/').next() == Some(out) {
            return None;
        }
        let Some(there) = there else {
            let metadata = ObjectMeta {
                name: self.metadata.name.clone(),
                namespace: Some(out.to_owned()),
                annotations: Some(BTreeMap::from([(ORIGIN.to_owned(), origin)])),
                ..ObjectMeta::default()
            };
            return Some(Self { metadata, spec: self.spec.clone() });
        };
        let done = there.spec == self.spec && there.annotations().get(ORIGIN) == Some(&origin);
        if done || there.spec.nonce > self.spec.nonce {
            return None;
        }
        let mut next = there.clone();
        next.annotations_mut().insert(ORIGIN.to_owned(), origin);
        next.spec = self.spec.clone();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, nonce: i64, origin: Option<&str>) -> TestResource {
        let mut object = TestResource::new("ring", TestResourceSpec { nonce, updated_at: "now".to_owned() });
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.annotations = origin.map(|origin| [(ORIGIN.to_owned(), origin.to_owned())].into());
        object
    }

    #[test]
    fn a_nonce_is_passed_on_with_its_origin_and_ends_before_it() {
        let first = object("a", 1, Some("x/0"));
        assert_eq!(first.passed_on("b", None), Some(object("b", 1, Some("a/1"))));
        assert_eq!(object("b", 1, Some("a/1")).passed_on("a", Some(&first)), None);
    }

    #[test]
    fn what_is_there_already_or_newer_is_left_alone() {
        let seen = object("a", 1, None);
        assert_eq!(seen.passed_on("b", Some(&object("b", 1, Some("a/1")))), None);
        assert_eq!(seen.passed_on("b", Some(&object("b", 2, None))), None);
        let mut old = object("b", 0, None);
        old.metadata.resource_version = Some("7".to_owned());
        let next = seen.passed_on("b", Some(&old)).unwrap();
        assert_eq!((next.resource_version().as_deref(), next.spec.nonce), (Some("7"), 1));
    }
}
