//! What is known of a flow, and the step that it has reached.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::action::{Placement, Protocol};

/// Types of conditions.
pub mod condition {
    /// Image and kind are known.
    pub const ACTION_RESOLVED: &str = "ActionResolved";
    /// The pod has a node.
    pub const SCHEDULED: &str = "Scheduled";
    /// The action's container is ready.
    pub const READY: &str = "Ready";
    /// The Service exists and has its ports.
    pub const SERVICE_READY: &str = "ServiceReady";
    /// `runtimeConf` of the observed generation is in the ConfigMap, and was pushed if that is wanted.
    pub const CONF_APPLIED: &str = "ConfApplied";
    /// The last change of placement or parameters took effect.
    pub const RECONFIGURED: &str = "Reconfigured";
    /// All completion endpoints have acknowledged.
    pub const COMPLETION_DELIVERED: &str = "CompletionDelivered";
    /// The action failed, or cannot run.
    pub const FAILED: &str = "Failed";
    /// Of a target: OpenWhisk answers and accepts the key.
    pub const REACHABLE: &str = "Reachable";
}

/// Reasons of conditions, and of Events.
pub mod reason {
    macro_rules! reasons {
        ($($(#[$doc:meta])* $constant:ident = $text:literal;)*) => {
            $($(#[$doc])* pub const $constant: &str = $text;)*
            /// All of them.
            pub const ALL: &[&str] = &[$($text),*];
        };
    }
    reasons! {
        /// The action was found, or its image was given.
        RESOLVED = "Resolved";
        /// OpenWhisk answers 404.
        ACTION_NOT_FOUND = "ActionNotFound";
        /// OpenWhisk answers 401 or 403.
        UNAUTHORIZED = "Unauthorized";
        /// No image is known for the action's kind.
        UNSUPPORTED_KIND = "UnsupportedKind";
        /// A sequence has no image.
        SEQUENCE_NOT_SUPPORTED = "SequenceNotSupported";
        /// OpenWhisk cannot be reached, or answers nonsense; it is asked again.
        LOOKUP_FAILED = "LookupFailed";
        /// The target, its Secret or a source of parameters does not exist or cannot be used.
        TARGET_NOT_FOUND = "TargetNotFound";
        /// A Secret or ConfigMap that is referred to is missing or malformed.
        REFERENCE_INVALID = "ReferenceInvalid";
        /// `spec.suspend` is set.
        SUSPENDED = "Suspended";
        /// The pod has a node.
        SCHEDULED = "Scheduled";
        /// No node has the labels of the node selector.
        NODE_SELECTOR_UNSATISFIED = "NodeSelectorUnsatisfied";
        /// Other flows are on all nodes that would do.
        ANTI_AFFINITY_UNSATISFIED = "AntiAffinityUnsatisfied";
        /// No node has the resources left.
        INSUFFICIENT_RESOURCES = "InsufficientResources";
        /// Another reason of the scheduler.
        UNSCHEDULABLE = "Unschedulable";
        /// There is no pod yet, or its container has not started.
        STARTING = "Starting";
        /// The action's container is ready.
        RUNNING = "Running";
        /// The container has ended, or the pod is gone.
        NOT_RUNNING = "NotRunning";
        /// The pod was evicted or its node was lost; it is started again and does not count as failed.
        EVICTED = "Evicted";
        /// The image cannot be pulled.
        IMAGE_PULL = "ImagePull";
        /// Everything that was asked for is there.
        APPLIED = "Applied";
        /// The kubelet, a ConfigMap or a push did not take the configuration.
        PUSH_FAILED = "PushFailed";
        /// The new pod is being started beside the old one.
        IN_PROGRESS = "InProgress";
        /// The new pod has taken over.
        SWITCHED = "Switched";
        /// The new pod was not ready in time; it is being removed.
        TIMED_OUT = "TimedOut";
        /// The new pod is gone; the old one serves as before.
        ROLLED_BACK = "RolledBack";
        /// All completion endpoints have acknowledged.
        DELIVERED = "Delivered";
        /// A completion endpoint is to be called, or to be called again.
        PENDING = "Pending";
        /// A completion endpoint refused too often.
        GAVE_UP = "GaveUp";
        /// The time limit is over.
        DEADLINE_EXCEEDED = "DeadlineExceeded";
        /// The action failed more often than `backoffLimit` allows.
        BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded";
        /// The API server refuses an object.
        CREATE_REJECTED = "CreateRejected";
        /// The custom resource was deleted while the action ran.
        CANCELLED = "Cancelled";
        /// The action ended well.
        SUCCEEDED = "Succeeded";
        /// Ninety per cent of the time limit are over.
        DEADLINE_APPROACHING = "DeadlineApproaching";
        /// OpenWhisk answers and accepts the key.
        REACHABLE = "Reachable";
        /// OpenWhisk does not answer.
        UNREACHABLE = "Unreachable";
    }
}

/// Phases of a flow, for people; programs read the conditions.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was started.
    #[default]
    Pending,
    /// The action is being looked up.
    Resolving,
    /// The Job is being made, or its pod is starting.
    Starting,
    /// The action's container is ready.
    Running,
    /// A new pod is being started beside the running one.
    Reconfiguring,
    /// The action ended well.
    Succeeded,
    /// The action ended badly, or cannot run.
    Failed,
    /// The custom resource is being deleted.
    Deleting,
}

/// What is known of a flow. Whatever a protocol needs to go on is written here before it is done.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffloadedActionStatus {
    /// The generation of the spec that is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people.
    #[serde(default)]
    pub phase: Phase,
    /// Stays the same for the life of the flow: the object's uid without hyphens.
    #[serde(rename = "flowID", default, skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    /// The Job of the newest template.
    #[serde(rename = "jobID", default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// While reconfiguring: the Job that the Service still leads to.
    #[serde(rename = "previousJobID", default, skip_serializing_if = "Option::is_none")]
    pub previous_job_id: Option<String>,
    /// What is needed to go back to `previousJobID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousRun>,
    /// Digest of the part of the spec that the Job was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Digest of the template that was rolled back: it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_template: Option<String>,
    /// When the reconfiguration began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub reconfigure_time: Option<Time>,
    /// Jobs that are being removed.
    #[serde(rename = "removingJobIDs", default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<String>,
    /// The image that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_image: Option<String>,
    /// The action's kind in OpenWhisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The action's entry point in OpenWhisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// The placement in effect: that of the spec, or of the action's annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The pod that the Service leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Its address.
    #[serde(rename = "podIP", default, skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// The address of its node.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_phase: Option<String>,
    /// The Service as the API server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// Facts about the pod's network, as far as they can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// The last lines of the action's output, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// When the Job was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub start_time: Option<Time>,
    /// When the action had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub completion_time: Option<Time>,
    /// The last line of the action's output, if it is a JSON object: OpenWhisk's rule for results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::any")]
    pub result: Option<Value>,
    /// What became of the calls of the completion endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Delivery>,
    /// The Job about whose deadline was warned.
    #[serde(rename = "warnedJobID", default, skip_serializing_if = "Option::is_none")]
    pub warned_job_id: Option<String>,
    /// `runtimeConf` as it was pushed last, as digests of the values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pushed_conf: BTreeMap<String, String>,
    /// In the common shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What is needed to go back to a Job.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousRun {
    /// Digest of its template.
    pub template: String,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_image: Option<String>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// Its placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub start_time: Option<Time>,
}

/// The Service as the API server has it.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its address inside the cluster.
    #[serde(rename = "clusterIP", default, skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<PortStatus>,
}

/// A port of a Service.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on every node, where the Service has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// What can be seen of the pod's network. It is reported, not managed.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// All addresses of the pod.
    #[serde(rename = "podIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
    /// The pod networks of the pod's node.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// The networks of Services.
    #[serde(rename = "serviceCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub service_cidrs: Vec<String>,
    /// The NetworkPolicies of the flow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_policies: Vec<String>,
}

/// What became of the calls of one completion endpoint.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// `triggers:<name>` or `actions:<name>`.
    pub endpoint: String,
    /// Calls so far.
    #[serde(default)]
    pub attempts: u32,
    /// When it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub delivered: Option<Time>,
    /// When the next call is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::time")]
    pub next_attempt: Option<Time>,
}
