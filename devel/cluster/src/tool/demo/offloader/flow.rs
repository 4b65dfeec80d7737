//! What a user does with an action, and what becomes of it.

// A missing field of a JSON value is null; nothing here is a slice.
#![allow(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;
use wasm_operator_devel::set_container_log;

use super::openwhisk::CREDENTIALS;
use crate::demo::manifest::{self, FIELD_MANAGER};

/// Of everything that a user makes here.
pub(super) const NAMESPACE: &str = "offload";
const VERSION: &str = "offloader.wasm-operator.dev/v1alpha1";
const NAME: &str = "video";
const CONTAINER: &str = "ow-action";
/// By this label the guest's objects are known, as in the original.
const FLOW: &str = "flowId";

/// Each step takes a second or two; this is for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

pub(super) struct Flow {
    client: Client,
    actions: Api<DynamicObject>,
    log: PathBuf,
}

impl Flow {
    pub(super) fn new(client: Client, directory: &Path) -> Self {
        let kind = GroupVersionKind::gvk("offloader.wasm-operator.dev", "v1alpha1", "OffloadedAction");
        let resource = ApiResource::from_gvk(&kind);
        let actions = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
        Self { client, actions, log: directory.join("ow-action.log") }
    }

    pub(super) async fn wait_for_crds(&self, manifest: &str) -> Result<()> {
        let kind = GroupVersionKind::gvk("offloader.wasm-operator.dev", "v1alpha1", "OffloadTarget");
        manifest::until_served(&Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind)), manifest).await?;
        manifest::until_served(&self.actions, manifest).await
    }

    /// Makes OpenWhisk known.
    pub(super) async fn target(&self, url: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "openwhisk", "namespace": NAMESPACE },
            "stringData": { "ow-api-key": CREDENTIALS },
        });
        let target = json!({
            "apiVersion": VERSION, "kind": "OffloadTarget",
            "metadata": { "name": "openwhisk", "namespace": NAMESPACE },
            "spec": { "apiHost": url, "authSecretRef": { "name": "openwhisk" } },
        });
        for object in [secret, target] {
            manifest::apply(&self.client, object).await?;
        }
        Ok(())
    }

    /// Has an action offloaded, and waits until it runs.
    pub(super) async fn offload(&self) -> Result<String> {
        let lines = ["transcoding started", "frame 100 of 250", "frame 200 of 250"];
        set_container_log(&self.client, &self.log, NAMESPACE, CONTAINER, &lines).await?;
        let began = Instant::now();
        let action = json!({
            "apiVersion": VERSION, "kind": "OffloadedAction",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "spec": {
                "action": "/guest/demo/video",
                "targetRef": { "name": "openwhisk" },
                "params": { "bitrate": "4M" },
                "service": { "type": "NodePort", "ports": [{ "port": 5000 }] },
                "placement": { "nodeSelector": { "processor": "cpu" } },
                "runtimeConf": { "target_ip": "10.244.4.8" },
                "completion": { "triggers": ["/guest/ended"] },
            },
        });
        manifest::apply(&self.client, action).await?;
        let status = self.until("the action runs", |status| status["phase"] == "Running").await?;
        let ports: Vec<String> = array(&status["service"]["ports"])
            .map(|port| format!("{}/{} -> {}", port["port"], word(&port["protocol"]), port["nodePort"]))
            .collect();
        Ok(format!(
            "\nOffloaded `/guest/demo/video` in {:.1} s: image {}, {}\n  Service {}: {}",
            began.elapsed().as_secs_f64(),
            word(&status["resolvedImage"]),
            place(&status),
            word(&status["service"]["name"]),
            ports.join(", "),
        ))
    }

    /// Moves it to another node, and waits until the new pod has taken over.
    pub(super) async fn reconfigure(&self) -> Result<String> {
        let began = Instant::now();
        let before = self.status().await?;
        let change = json!({ "spec": { "placement": { "nodeSelector": { "processor": "gpu" } } } });
        let manager = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.actions.patch(NAME, &manager, &Patch::Merge(&change)).await.context("cannot change the placement")?;
        let swapped = |status: &Value| {
            let switched = array(&status["conditions"])
                .any(|condition| condition["type"] == "Reconfigured" && condition["status"] == "True");
            status["jobID"] != before["jobID"] && status["phase"] == "Running" && switched
        };
        let after = self.until("the new pod has taken over", swapped).await?;
        Ok(format!(
            "\nMoved to a node with `processor=gpu` in {:.1} s\n  before: {}\n  now:    {}",
            began.elapsed().as_secs_f64(),
            place(&before),
            place(&after),
        ))
    }

    /// The end of its output, as `kubectl logs --tail=2` shows it.
    pub(super) async fn logs(&self) -> Result<String> {
        let status = self.status().await?;
        let pod = word(&status["podName"]);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let params = LogParams { container: Some(CONTAINER.to_owned()), tail_lines: Some(2), ..LogParams::default() };
        let tail = pods.logs(pod, &params).await.with_context(|| format!("cannot read the log of `{pod}`"))?;
        let lines: String = tail.lines().map(|line| format!("  | {line}\n")).collect();
        Ok(format!("\nThe end of the log of {pod}:\n{}", lines.trim_end()))
    }

    /// Deletes the custom resource, and waits until nothing is left.
    pub(super) async fn delete(&self) -> Result<String> {
        let began = Instant::now();
        self.actions.delete(NAME, &DeleteParams::default()).await.context("cannot delete the OffloadedAction")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left().await?;
            if left == 0 && self.actions.get_opt(NAME).await?.is_none() {
                let seconds = began.elapsed().as_secs_f64();
                return Ok(format!(
                    "\nDeleted in {seconds:.1} s: no Job, pod, Service, Secret or ConfigMap of it is left"
                ));
            }
            if Instant::now() >= deadline {
                bail!("{left} objects are left {} s after the OffloadedAction was deleted", PATIENCE.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn left(&self) -> Result<usize> {
        let of_flows = ListParams::default().labels(FLOW);
        let client = || self.client.clone();
        Ok(Api::<Job>::namespaced(client(), NAMESPACE).list_metadata(&of_flows).await?.items.len()
            + Api::<Pod>::namespaced(client(), NAMESPACE).list_metadata(&of_flows).await?.items.len()
            + Api::<Service>::namespaced(client(), NAMESPACE).list_metadata(&of_flows).await?.items.len()
            + Api::<Secret>::namespaced(client(), NAMESPACE).list_metadata(&of_flows).await?.items.len()
            + Api::<ConfigMap>::namespaced(client(), NAMESPACE).list_metadata(&of_flows).await?.items.len())
    }

    async fn status(&self) -> Result<Value> {
        let action = self.actions.get(NAME).await.context("cannot read the OffloadedAction")?;
        Ok(action.data.get("status").cloned().unwrap_or_default())
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await?;
            if wanted(&status) {
                return Ok(status);
            }
            if status["phase"] == "Failed" || Instant::now() >= deadline {
                bail!("{what}: not so; the status of the OffloadedAction is {status:#}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn place(status: &Value) -> String {
    format!("pod {} on node {}", word(&status["podName"]), word(&status["nodeName"]))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
