//! Nodes that kwok simulates, and the logs of their containers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::clients::Error;

/// What the pods of the nodes do; `devel/README.md` lists it.
pub(crate) const CONFIGURATION: &str = include_str!("../../kwok/kwok.yaml");
const LOGS_CRDS: &str = include_str!("../../kwok/logs.yaml");
const FIELD_MANAGER: &str = "wasm-operator-devel";

/// A simulated node. It has room for every test unless [`resource`](Self::resource) says otherwise.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    labels: BTreeMap<String, String>,
    resources: BTreeMap<String, Quantity>,
}

impl Node {
    /// A node of this name, which it also has as the label `kubernetes.io/hostname`.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let resources = [("cpu", "64"), ("memory", "256Gi"), ("ephemeral-storage", "1Ti"), ("pods", "2000")];
        Self {
            labels: BTreeMap::from([
                ("kubernetes.io/hostname".to_owned(), name.clone()),
                ("kubernetes.io/os".to_owned(), "linux".to_owned()),
                ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
            ]),
            resources: resources.map(|(name, much)| (name.to_owned(), Quantity(much.to_owned()))).into(),
            name,
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Says how much it has of something, such as `nvidia.com/gpu`.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.resources.insert(name.into(), Quantity(quantity.into()));
        self
    }

    fn object(&self) -> core::Node {
        let status = core::NodeStatus {
            allocatable: Some(self.resources.clone()),
            capacity: Some(self.resources.clone()),
            ..core::NodeStatus::default()
        };
        core::Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            status: Some(status),
            ..core::Node::default()
        }
    }

    /// Creates the node in a cluster where kwok runs, and leaves alone one that exists.
    pub async fn create(&self, client: &Client) -> Result<(), Error> {
        let nodes: Api<core::Node> = Api::all(client.clone());
        match nodes.create(&PostParams::default(), &self.object()).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => Ok(created.map(drop)?),
        }
    }
}

/// Installs the kinds by which kwok is told of logs.
pub(crate) async fn install_log_kinds(client: &Client) -> Result<(), Error> {
    let all: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(LOGS_CRDS).map_err(io::Error::other)?;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in all {
        api.patch(&crd.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&crd)).await?;
    }
    Ok(())
}

/// Whether both kinds are served.
pub(crate) async fn log_kinds_are_served(client: &Client) -> Result<(), Error> {
    for kind in ["ClusterLogs", "Logs"] {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &logs_resource(kind));
        api.list(&ListParams::default().limit(1)).await?;
    }
    Ok(())
}

/// How many nodes pods can be scheduled on.
pub(crate) async fn ready_nodes(client: &Client) -> Result<usize, Error> {
    let nodes: Api<core::Node> = Api::all(client.clone());
    let is_ready = |node: &core::Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        ready && node.spec.as_ref().is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty))
    };
    Ok(nodes.list(&ListParams::default()).await?.items.iter().filter(|node| is_ready(node)).count())
}

/// Gives containers of this name, in pods of this namespace, these lines as their log (`pods/log`), those of pods to
/// come as well. They are written to `file`, which must stay. Without such a log kwok answers 400, as a kubelet does for
/// a container that has not started.
pub async fn set_container_log(
    client: &Client,
    file: &Path,
    namespace: &str,
    container: &str,
    lines: &[&str],
) -> Result<(), Error> {
    // In one step: kwok may be reading it.
    let next = file.with_extension("next");
    fs::write(&next, container_runtime_log(&Timestamp::now().to_string(), lines))?;
    fs::rename(&next, file)?;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &logs_resource("ClusterLogs"));
    let name = format!("{namespace}.{container}");
    let object = json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterLogs",
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchNamespaces": [namespace] },
            "logs": [{ "containers": [container], "logsFile": file }],
        },
    });
    api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// The format in which container runtimes write logs and kubelets read them.
fn container_runtime_log(time: &str, lines: &[&str]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{time} stdout F {line}");
        text
    })
}

fn logs_resource(kind: &str) -> ApiResource {
    let gvk = GroupVersionKind::gvk("kwok.x-k8s.io", "v1alpha1", kind);
    ApiResource::from_gvk_with_plural(&gvk, &kind.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_what_it_is_given_and_has_room_otherwise() {
        let node = Node::new("gpu").label("processor", "gpu").resource("nvidia.com/gpu", "1").resource("cpu", "2");
        let object = node.object();
        let labels = object.metadata.labels.unwrap();
        assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["processor"].as_str()), ("gpu", "gpu"));
        let status = object.status.unwrap();
        assert_eq!(status.capacity, status.allocatable);
        let capacity = status.capacity.unwrap();
        assert_eq!((capacity["nvidia.com/gpu"].0.as_str(), capacity["cpu"].0.as_str()), ("1", "2"));
        assert!(capacity.contains_key("pods"));
    }

    #[test]
    fn logs_have_the_format_of_a_container_runtime() {
        let log = container_runtime_log("2026-01-02T03:04:05Z", &["one", ""]);
        assert_eq!(log, "2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:05Z stdout F \n");
    }
}
