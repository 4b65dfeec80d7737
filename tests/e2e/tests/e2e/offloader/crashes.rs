//! Every protocol of a flow, interrupted after each of its writes.

use std::time::Duration;

use harness::{
    Context as _, Fault, Guest, Protocol, Result, Stage as Run, crash_after_every_write, ensure, eventually_within,
    test_with_nodes, until_object,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use openwhisk::{Action, OpenWhisk};
use serde_json::{Value, json};

use super::stage::{GROUP, KEY, condition, guest, install, openwhisk_with_user, target};

/// With a crash in the middle, and the pauses of a guest that broke off.
const PATIENCE: Duration = Duration::from_secs(60);

/// A flow is offloaded, moved, and ends; another one is deleted while it runs.
struct Flows {
    whisk: OpenWhisk,
}

/// The flows of one run.
struct Of<'a> {
    run: &'a Run<'a>,
    flows: Api<DynamicObject>,
}

impl<'a> Of<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        let flows = Api::namespaced_with(run.space.client(), &run.namespace, &resource("OffloadedAction"));
        Self { run, flows }
    }

    async fn create(&self, name: &str) -> Result<()> {
        let spec = json!({
            "action": "/guest/ping", "targetRef": { "name": "whisk" }, "params": { "Name": "P" },
            "runtimeConf": { "a": "1" }, "service": { "ports": [{ "port": 5000 }] },
            "completion": { "triggers": ["/guest/t1"] },
            "networkPolicy": { "ingressFrom": [] },
        });
        let flow = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadedAction", "metadata": { "name": name }, "spec": spec,
        });
        self.flows.create(&PostParams::default(), &serde_json::from_value(flow)?).await?;
        Ok(())
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let flow = until_object(&self.flows, name, what, |flow| flow.is_some_and(|flow| wanted(&flow.data))).await?;
        Ok(flow.context("no flow")?.data)
    }

    /// Waits until it runs in this placement, and nothing of another is left.
    async fn until_running(&self, name: &str) -> Result<Value> {
        let running = |data: &Value| {
            of_status(data, "phase") == "Running"
                && of_status(data, "previousJobID").is_null()
                && of_status(data, "removingJobIDs").is_null()
        };
        self.until(name, "the flow runs", running).await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.run.space.client(), &self.run.namespace)
    }
}

fn of_status<'a>(data: &'a Value, field: &str) -> &'a Value {
    data.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null)
}

fn is_true(data: &Value, type_: &str) -> bool {
    condition(data, type_).and_then(|one| one.get("status")).is_some_and(|status| status == "True")
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind))
}

impl Protocol for Flows {
    fn guest(&self, run: &Run<'_>) -> Guest {
        guest(&run.namespace).set("allowedHosts", vec![self.whisk.url()])
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![
            resource("OffloadTarget"),
            resource("OffloadedAction"),
            ApiResource::erase::<Job>(&()),
            ApiResource::erase::<Pod>(&()),
            ApiResource::erase::<Service>(&()),
            ApiResource::erase::<Secret>(&()),
            ApiResource::erase::<ConfigMap>(&()),
            ApiResource::erase::<NetworkPolicy>(&()),
        ]
    }

    async fn prepare(&self, run: &Run<'_>) -> Result<()> {
        target(run.space, &run.namespace, "whisk", &self.whisk.url(), KEY).await
    }

    async fn run(&self, run: &Run<'_>) -> Result<()> {
        let of = Of::new(run);
        of.create("one").await?;
        let before = of.until_running("one").await?;
        let placement = json!({ "spec": { "placement": { "nodeSelector": { "processor": "gpu" } } } });
        of.flows.patch("one", &PatchParams::default(), &Patch::Merge(&placement)).await?;
        let moved =
            |data: &Value| is_true(data, "Reconfigured") && of_status(data, "jobID") != of_status(&before, "jobID");
        of.until("one", "it has moved", moved).await?;
        let after = of.until_running("one").await?;
        let pod = of_status(&after, "podName").as_str().context("a pod")?;
        let end = json!({ "metadata": { "annotations": { "simulated.invalid/ow-action": "completes" } } });
        of.pods().patch(pod, &PatchParams::default(), &Patch::Merge(&end)).await?;
        let told = |data: &Value| of_status(data, "phase") == "Succeeded" && is_true(data, "CompletionDelivered");
        of.until("one", "its end is told", told).await?;

        of.create("two").await?;
        of.until_running("two").await?;
        of.flows.delete("two", &DeleteParams::default()).await?;
        until_object(&of.flows, "two", "it is gone", |flow| flow.is_none()).await?;
        // The garbage collector learns of a new kind up to 30 s late.
        eventually_within(PATIENCE, "nothing of the deleted flow is left", async || {
            for kind in self.kinds() {
                let api: Api<DynamicObject> = Api::namespaced_with(run.space.client(), &run.namespace, &kind);
                let left = api.list(&ListParams::default().labels("flowId")).await?.items;
                let of_two = |object: &&DynamicObject| object.annotations().values().any(|flow| flow == "two");
                ensure!(left.iter().filter(of_two).count() == 0, "{} is left", kind.kind);
            }
            Ok(())
        })
        .await
    }
}

#[test]
fn a_flow_ends_the_same_after_a_crash_at_every_write_of_its_life() -> Result<()> {
    test_with_nodes(async |space| {
        install(space).await?;
        let whisk = openwhisk_with_user().await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        whisk.trigger("/guest/t1")?;
        let report = crash_after_every_write(space, &Flows { whisk: whisk.clone() }, &Fault::ALL).await?;
        ensure!(report.writes.len() > 30 && report.runs > 90, "{} writes: {:?}", report.writes.len(), report.writes);
        report.check()
    })
}
