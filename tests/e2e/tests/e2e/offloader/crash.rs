//! Every protocol of a flow, with the guest dropped, the host killed or an answer lost after every single write.

use harness::{
    Context as _, Fault, Guest, Protocol, Result, Stage, crash_after_every_write, ensure, eventually, test_with_nodes,
    until_object,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use openwhisk::{Action, OpenWhisk};
use serde_json::{Value, json};

use super::stage::{GROUP, KEY, guest, install, openwhisk_with_user, target};

const NAME: &str = "ping";

/// What is done with a flow.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// It runs.
    Created,
    /// It was given another placement.
    Reconfigured,
    /// Its action has ended, and OpenWhisk was told.
    Completed,
    /// It was deleted while it ran.
    Deleted,
}

struct Flow {
    whisk: OpenWhisk,
    until: Until,
}

impl Flow {
    async fn new(until: Until) -> Result<Self> {
        let whisk = openwhisk_with_user().await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        whisk.trigger("/guest/t1")?;
        Ok(Self { whisk, until })
    }

    fn flows(stage: &Stage<'_>) -> Api<DynamicObject> {
        Api::namespaced_with(stage.space.client(), &stage.namespace, &resource())
    }

    async fn wait(stage: &Stage<'_>, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let flows = Self::flows(stage);
        let found = until_object(&flows, NAME, what, |flow| flow.is_some_and(|flow| wanted(&flow.data))).await?;
        found.context("no flow").map(drop)
    }
}

impl Flow {
    /// A last change, whose last write is one of the status, so that no event is still to come when the run is over.
    async fn change_in_place(stage: &Stage<'_>, generation: i64) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"runtimeConf": {"a": "c"}}}));
        Self::flows(stage).patch(NAME, &PatchParams::default(), &patch).await?;
        let is_seen = |data: &Value| is_running(data) && data["status"]["observedGeneration"] == generation;
        Self::wait(stage, "the change is in effect", is_seen).await
    }
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", "OffloadedAction"))
}

fn is_running(data: &Value) -> bool {
    let status = &data["status"];
    status["phase"] == "Running"
        && status["removingJobIDs"].is_null()
        && status["service"].is_object()
        && status["network"].is_object()
}

/// The name of the ConfigMap holds the flow's identifier in its middle, which is another one in each run.
fn without_flow_in_conf(object: &mut Value) {
    match object {
        Value::String(text) => {
            let id = text.strip_prefix("offload-invoker-").and_then(|rest| rest.strip_suffix("-conf"));
            if id.is_some_and(|id| id.len() == 32) {
                "offload-invoker-conf".clone_into(text);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(without_flow_in_conf),
        Value::Object(all) => all.values_mut().for_each(without_flow_in_conf),
        _ => {}
    }
}

impl Protocol for Flow {
    fn guest(&self, stage: &Stage<'_>) -> Guest {
        guest(&stage.namespace).set("allowedHosts", vec![self.whisk.url()])
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![
            resource(),
            ApiResource::erase::<Job>(&()),
            ApiResource::erase::<Service>(&()),
            ApiResource::erase::<Secret>(&()),
            ApiResource::erase::<ConfigMap>(&()),
            ApiResource::erase::<NetworkPolicy>(&()),
        ]
    }

    async fn prepare(&self, stage: &Stage<'_>) -> Result<()> {
        install(stage.space).await?;
        target(stage.space, &stage.namespace, "whisk", &self.whisk.url(), KEY).await
    }

    async fn run(&self, stage: &Stage<'_>) -> Result<()> {
        let flow = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadedAction", "metadata": {"name": NAME}, "spec": {
                "action": "/guest/ping", "targetRef": {"name": "whisk"}, "completion": {"triggers": ["/guest/t1"]},
                "service": {"type": "ClusterIP"}, "runtimeConf": {"a": "b"}, "networkPolicy": {"ingressFrom": []},
            },
        });
        let flows = Self::flows(stage);
        flows.patch(NAME, &PatchParams::apply("e2e").force(), &Patch::Apply(&flow)).await?;
        Self::wait(stage, "the flow runs", is_running).await?;
        match self.until {
            Until::Created => Self::change_in_place(stage, 2).await,
            Until::Completed => {
                let pods: Api<Pod> = Api::namespaced(stage.space.client(), &stage.namespace);
                let of_flow = ListParams::default().labels("job-type=ow-offload-job");
                let pod = pods.list(&of_flow).await?.items.into_iter().next().context("no pod")?;
                let end =
                    Patch::Merge(json!({"metadata": {"annotations": {"simulated.invalid/ow-action": "completes"}}}));
                pods.patch(&pod.name_any(), &PatchParams::default(), &end).await?;
                Self::wait(stage, "OpenWhisk was told", |data| {
                    let conditions = data["status"]["conditions"].as_array().into_iter().flatten();
                    conditions.into_iter().any(|one| one["type"] == "CompletionDelivered" && one["status"] == "True")
                })
                .await
            }
            Until::Reconfigured => {
                let patch = Patch::Merge(json!({"spec": {"placement": {"nodeSelector": {"processor": "gpu"}}}}));
                flows.patch(NAME, &PatchParams::default(), &patch).await?;
                Self::wait(stage, "the new pod has taken over", |data| {
                    is_running(data) && data["status"]["nodeName"] == "gpu" && data["status"]["observedGeneration"] == 2
                })
                .await?;
                Self::change_in_place(stage, 3).await
            }
            Until::Deleted => {
                flows.delete(NAME, &DeleteParams::default()).await?;
                until_object(&flows, NAME, "the flow is gone", |flow| flow.is_none()).await?;
                // The garbage collector takes its time.
                eventually("nothing is left", async || {
                    for kind in self.kinds() {
                        let objects: Api<DynamicObject> =
                            Api::namespaced_with(stage.space.client(), &stage.namespace, &kind);
                        let left = objects.list(&ListParams::default().labels("flowId")).await?.items.len();
                        ensure!(left == 0, "{left} {}", kind.plural);
                    }
                    Ok(())
                })
                .await
            }
        }
    }

    fn adapt(&self, object: &mut Value) {
        without_flow_in_conf(object);
        // A call whose acknowledgement was lost is repeated; which node the scheduler takes is its own affair, and so are
        // the addresses that follow from it.
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["hostIP", "nodeName", "podIP", "podName", "network"] {
                status.remove(field);
            }
            for delivery in status.get_mut("deliveries").and_then(Value::as_array_mut).into_iter().flatten() {
                delivery["attempts"].take();
            }
            for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                if condition["type"] == "Scheduled" {
                    condition["message"].take();
                }
            }
        }
    }
}

// OFF-29
#[test]
fn a_flow_is_made_once_whatever_is_interrupted() -> Result<()> {
    test_with_nodes(async |space| {
        crash_after_every_write(space, &Flow::new(Until::Created).await?, &Fault::ALL).await?.check()
    })
}

#[test]
fn a_flow_is_reconfigured_whatever_is_interrupted() -> Result<()> {
    test_with_nodes(async |space| {
        crash_after_every_write(space, &Flow::new(Until::Reconfigured).await?, &Fault::ALL).await?.check()
    })
}

#[test]
fn an_end_is_told_whatever_is_interrupted() -> Result<()> {
    test_with_nodes(async |space| {
        crash_after_every_write(space, &Flow::new(Until::Completed).await?, &Fault::ALL).await?.check()
    })
}

#[test]
fn a_flow_is_deleted_whatever_is_interrupted() -> Result<()> {
    test_with_nodes(async |space| {
        crash_after_every_write(space, &Flow::new(Until::Deleted).await?, &Fault::ALL).await?.check()
    })
}
