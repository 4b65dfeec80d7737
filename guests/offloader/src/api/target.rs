//! Where OpenWhisk is, and as whom to speak to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// An OpenWhisk installation, and the Secret with the key of its user.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "offloader.wasm-operator.dev",
    version = "v1alpha1",
    kind = "OffloadTarget",
    plural = "offloadtargets",
    namespaced,
    status = "OffloadTargetStatus",
    shortname = "ot",
    derive = "PartialEq",
    doc = "An OpenWhisk installation, and the Secret with the key of its user.",
    printcolumn = r#"{"name": "Host", "type": "string", "jsonPath": ".spec.apiHost"}"#,
    printcolumn = r#"{"name": "Reachable", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Reachable\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct OffloadTargetSpec {
    /// Scheme, host and port of the OpenWhisk API: `https://openwhisk.example.org`. The host must allow it
    /// (`allowedHosts` in the guest's configuration). Its certificate has to be of a public authority or of one in
    /// `certificateAuthorities` there.
    #[schemars(regex(pattern = r"^https?://[^/?#@\s]+$"), length(max = 300))]
    pub api_host: String,
    /// The Secret of this namespace with the key `user:password` that OpenWhisk issued.
    pub auth_secret_ref: SecretKeyRef,
    /// The OpenWhisk namespace of names that do not begin with a slash.
    #[serde(default = "own_namespace")]
    #[schemars(regex(pattern = r"^[^/\s]+$"), length(max = 128))]
    pub default_namespace: String,
}

/// One entry of a Secret.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry.
    #[serde(default = "api_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What was seen of the installation when the target was created or changed last.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffloadTargetStatus {
    /// The generation of the spec that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Reachable`: whether OpenWhisk answered and accepted the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// OpenWhisk's word for the namespace that the key belongs to.
fn own_namespace() -> String {
    "_".to_owned()
}

/// The entry in which the original kept the key.
fn api_key() -> String {
    "ow-api-key".to_owned()
}
