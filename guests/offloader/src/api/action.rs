//! An OpenWhisk action that runs in the cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::OffloadedActionStatus;

/// An OpenWhisk action that runs in this cluster as a Job with a Service.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "offloader.wasm-operator.dev",
    version = "v1alpha1",
    kind = "OffloadedAction",
    plural = "offloadedactions",
    namespaced,
    status = "OffloadedActionStatus",
    shortname = "oa",
    derive = "PartialEq",
    doc = "An OpenWhisk action that runs in this cluster as a Job with a Service.",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Action", "type": "string", "jsonPath": ".spec.action"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.nodeName"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.image) || has(self.targetRef)").message("either `image` or `targetRef` is needed: without an image the action is looked up at the target"),
    validation = Rule::new("!has(self.completion) || has(self.targetRef)").message("`completion` needs `targetRef`: its triggers and actions are the target's"),
    validation = Rule::new("!has(self.runtimeConf) || self.runtimeConf.all(name, name.matches('^[-._a-zA-Z0-9]+$') && !name.startsWith('..'))").message("names in `runtimeConf` become files: they consist of letters, digits, `-`, `_` and `.`"),
)]
pub struct OffloadedActionSpec {
    /// The action: `/namespace/package/action`, `/namespace/action`, or a name in the target's default namespace.
    #[schemars(regex(pattern = r"^(/[^/\s]+(/[^/\s]+){1,2}|[^/\s]+(/[^/\s]+)?)$"), length(max = 512))]
    pub action: String,
    /// The OpenWhisk installation that knows the action and is told when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Runs this image; the action is not looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// The activation that offloaded the action; the action finds it in its parameters as `_VIM_VM_ID`.
    #[serde(rename = "activationID", default = "default_activation")]
    #[schemars(length(max = 256))]
    pub activation_id: String,
    /// The VM name by which the orchestrator knows the flow.
    #[serde(default = "not_available")]
    #[schemars(length(max = 256))]
    pub ro_vim_vm_name: String,
    /// The event to which the flow belongs.
    #[serde(rename = "eventUUID", default = "not_available")]
    #[schemars(length(max = 256))]
    pub event_uuid: String,
    /// Parameters of the action.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::schema::object")]
    pub params: Map<String, Value>,
    /// Further parameters, read when a Job is made. Those in `params` win, and later sources win over earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub params_from: Vec<ParamsSource>,
    /// Files below `/conf` that may change while the action runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 256))]
    pub runtime_conf: Option<BTreeMap<String, String>>,
    /// Sends each change of `runtimeConf` to port 8081 of a side container at once, instead of leaving it to the kubelet.
    #[serde(default)]
    pub push_conf: bool,
    /// How the action is reached.
    #[serde(default)]
    pub service: ServiceSource,
    /// Where the action runs, and with what. Without it, the `placement` annotation of the OpenWhisk action counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Who is told when the action has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
    /// Seconds after which the action is ended as failed; 0: never.
    #[serde(default = "default_time_limit")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub time_limit_seconds: i64,
    /// How often a failed action is started again. Evicted pods do not count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: i32,
    /// Keeps Job, Service and the rest of a failed action.
    #[serde(default)]
    pub keep_failed: bool,
    /// Seconds after the end of the action until Job, Service and the rest are removed. The custom resource stays.
    #[serde(default = "default_ttl")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: i64,
    /// Does not start the action, or stops it: its pod is deleted until this is false again.
    #[serde(default)]
    pub suspend: bool,
    /// Who may reach the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySource>,
    /// How long a new placement or new parameters may take to become ready before the old pod is kept instead.
    #[serde(default = "default_reconfigure_timeout")]
    #[schemars(range(min = 1, max = 86_400))]
    pub reconfigure_timeout_seconds: i64,
}

/// An `OffloadTarget` of the same namespace.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Parameters from an object of the same namespace: exactly one of the two.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.configMapRef)").message("exactly one of `secretRef` and `configMapRef` is needed"))]
pub struct ParamsSource {
    /// A Secret. The parameters are then kept in a Secret as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ConfigSource>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigSource>,
}

/// Entries of a Secret or ConfigMap.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSource {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry that holds a JSON object of parameters. Without it, every entry is a parameter whose value is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The Service of a flow. It stays the same over reconfigurations.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSource {
    /// The type of the Service; `None`: there is none.
    #[serde(rename = "type", default)]
    pub type_: ServiceType,
    /// The ports. That of the runtime configuration, 8081/TCP, is always there as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub ports: Vec<Port>,
}

/// Types of Services.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// A port of every node.
    #[default]
    NodePort,
    /// Inside the cluster.
    ClusterIP,
    /// An address from the cloud.
    LoadBalancer,
    /// No Service.
    None,
}

/// A port of the Service and of the action.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The number.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Protocols of ports.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Where an action runs, and with what.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that the node must have. Each becomes the pod label `FAAS_<key>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which other flows must not run on the same node.
    #[serde(default)]
    pub anti_affinity: AntiAffinity,
    /// Taints that the pod bears.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Linux capabilities beside the usual ones, such as `NET_ADMIN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Requests and limits of the action's container, `nvidia.com/gpu` among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The RuntimeClass of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
}

/// Which other flows must not run on the same node.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AntiAffinity {
    /// Any may.
    #[default]
    None,
    /// Other flows of the same action.
    SameAction,
    /// Other flows with the same first entry of `nodeSelector`; without one, as `SameAction`.
    SameSelector,
}

/// As in a pod.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key; none: every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint's effect; none: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// How long a `NoExecute` taint is borne.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Requests and limits of a container.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// The most that it gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "super::schema::amounts")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is set aside for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "super::schema::amounts")]
    pub requests: BTreeMap<String, Quantity>,
}

/// Triggers and actions of the target that are called with the result.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.triggers) || has(self.actions)").message("a trigger or an action is needed"))]
pub struct Completion {
    /// Names of triggers, qualified as `action` is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub triggers: Vec<String>,
    /// Names of actions, qualified as `action` is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub actions: Vec<String>,
}

/// Who may reach the action; everybody else may not.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySource {
    /// As in a NetworkPolicy. Empty: nobody.
    #[serde(default)]
    #[schemars(schema_with = "super::schema::objects")]
    pub ingress_from: Vec<NetworkPolicyPeer>,
}

/// What the original assumes when a caller names no activation.
fn default_activation() -> String {
    "42".to_owned()
}

/// What the original writes for a name that is not given.
fn not_available() -> String {
    "na".to_owned()
}

/// One hour, as the original.
pub(crate) fn default_time_limit() -> i64 {
    3600
}

/// Long enough to look at what is left of an action, short enough that nothing piles up.
fn default_ttl() -> i64 {
    300
}

/// What the original's waits add up to.
fn default_reconfigure_timeout() -> i64 {
    55
}
