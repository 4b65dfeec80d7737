//! A host with the offloader, one namespace, and the objects of its flows.

use harness::{Context as _, Guest, Host, Result, Space, ensure, eventually, until_object};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use openwhisk::OpenWhisk;
use serde_json::{Value, json};

const CRDS: &str = include_str!("../../../../../guests/offloader/crds.yaml");
pub(crate) const GROUP: &str = "offloader.wasm-operator.dev";
pub(crate) const GUEST: &str = "offloader";

/// The key of OpenWhisk's user in these tests.
pub(crate) const KEY: &str = "user:key";

/// One namespace with its host.
pub(crate) struct Stage<'a> {
    pub(crate) space: &'a Space,
    pub(crate) host: Host,
    pub(crate) namespace: String,
}

/// The guest, for one namespace, asleep soon.
pub(crate) fn guest(namespace: &str) -> Guest {
    Guest::new(GUEST, "offloader")
        .env("OFFLOAD_NAMESPACES", namespace)
        .env("OW_OFFLOAD_KUBE_NAMESPACE", namespace)
        .grant_as_requested()
        .idle_after("50ms")
}

pub(crate) async fn install(space: &Space) -> Result<()> {
    for crd in CRDS.split("---\n") {
        space.cluster().install(crd).await?;
    }
    Ok(())
}

/// OpenWhisk with a user `guest`.
pub(crate) async fn openwhisk_with_user() -> Result<OpenWhisk> {
    let whisk = OpenWhisk::start().await?;
    whisk.namespace("guest", KEY);
    Ok(whisk)
}

/// A target with its Secret.
pub(crate) async fn target(space: &Space, namespace: &str, name: &str, url: &str, key: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"ow-api-key": key},
    });
    let secrets: Api<Secret> = Api::namespaced(space.client(), namespace);
    secrets.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&secret)).await?;
    let target = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadTarget", "metadata": {"name": name},
        "spec": {"apiHost": url, "authSecretRef": {"name": name}},
    });
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", "OffloadTarget"));
    let targets: Api<DynamicObject> = Api::namespaced_with(space.client(), namespace, &resource);
    targets.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&target)).await?;
    Ok(())
}

/// The spec of an action that is looked up.
pub(crate) fn looked_up(action: &str) -> Value {
    json!({"action": action, "targetRef": {"name": "whisk"}})
}

impl<'a> Stage<'a> {
    pub(crate) async fn new(space: &'a Space) -> Result<Self> {
        Self::with(space, |guest| guest).await
    }

    pub(crate) async fn with(space: &'a Space, change: impl FnOnce(Guest) -> Guest) -> Result<Self> {
        install(space).await?;
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(change(guest(&namespace))).start().await?;
        host.until_ready().await?;
        Ok(Self { space, host, namespace })
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.space.client(), &self.namespace)
    }

    pub(crate) fn custom(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind));
        Api::namespaced_with(self.space.client(), &self.namespace, &resource)
    }

    pub(crate) fn flows(&self) -> Api<DynamicObject> {
        self.custom("OffloadedAction")
    }

    /// A stage with OpenWhisk, and a target of the name `whisk` for it.
    pub(crate) async fn with_openwhisk(space: &'a Space) -> Result<(Self, OpenWhisk)> {
        let whisk = openwhisk_with_user().await?;
        Ok((Self::beside(space, &whisk, |guest| guest).await?, whisk))
    }

    /// A stage that may reach this OpenWhisk, and a target of the name `whisk` for it.
    pub(crate) async fn beside(
        space: &'a Space,
        whisk: &OpenWhisk,
        change: impl FnOnce(Guest) -> Guest,
    ) -> Result<Self> {
        let url = whisk.url();
        let stage = Self::with(space, |guest| change(guest.set("allowedHosts", vec![url.clone()]))).await?;
        target(space, &stage.namespace, "whisk", &url, KEY).await?;
        Ok(stage)
    }

    /// Creates a flow and returns its identifier.
    pub(crate) async fn offload(&self, name: &str, spec: Value) -> Result<String> {
        let created = self.flows().create(&PostParams::default(), &self.flow_object(name, spec)?).await?;
        Ok(created.uid().context("no uid")?.replace('-', ""))
    }

    /// Has the API server refuse every Job of the namespace.
    pub(crate) async fn refuse_jobs(&self) -> Result<()> {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}},
        });
        let quotas = self.api::<ResourceQuota>();
        quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
        eventually("the quota is in force", async || {
            let quota = quotas.get("none").await?;
            ensure!(quota.status.and_then(|status| status.hard).is_some(), "no status");
            Ok(())
        })
        .await
    }

    pub(crate) fn flow_object(&self, name: &str, spec: Value) -> Result<DynamicObject> {
        Ok(serde_json::from_value(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadedAction", "metadata": {"name": name}, "spec": spec,
        }))?)
    }

    pub(crate) async fn patch(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.flows().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until the flow is as wanted.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<DynamicObject> {
        let flow = until_object(&self.flows(), name, what, |flow| flow.is_some_and(|flow| wanted(&flow.data))).await?;
        flow.context("no flow")
    }

    /// Waits until the flow has this phase.
    pub(crate) async fn until_phase(&self, name: &str, phase: &str) -> Result<DynamicObject> {
        self.until(name, &format!("the flow is {phase}"), |data| data["status"]["phase"] == phase).await
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub(crate) async fn until_condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("`{type_}` is {status} because of {reason}");
        let holds =
            |data: &Value| condition(data, type_).is_some_and(|one| one["status"] == status && one["reason"] == reason);
        let flow = self.until(name, &what, holds).await?;
        let found = condition(&flow.data, type_).context("no condition")?;
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for the only pod of a Job.
    pub(crate) async fn until_pod(&self, job_id: &str) -> Result<Pod> {
        let selector = ListParams::default().labels(&format!("jobId={job_id}"));
        eventually("the Job has a pod", async || {
            let pods = self.api::<Pod>().list(&selector).await?;
            pods.items.into_iter().next().context("no pod")
        })
        .await
    }

    pub(crate) async fn job(&self, job_id: &str) -> Result<Job> {
        Ok(self.api::<Job>().get(&format!("offload-invoker-{job_id}")).await?)
    }

    pub(crate) async fn service(&self, flow_id: &str) -> Result<Service> {
        Ok(self.api::<Service>().get(&format!("offload-invoker-{flow_id}")).await?)
    }

    /// How many objects of each kind belong to any flow.
    pub(crate) async fn counts(&self) -> Result<[usize; 6]> {
        let all = ListParams::default().labels("flowId");
        Ok([
            self.api::<Job>().list(&all).await?.items.len(),
            self.api::<Pod>().list(&all).await?.items.len(),
            self.api::<Service>().list(&all).await?.items.len(),
            self.api::<Secret>().list(&all).await?.items.len(),
            self.api::<ConfigMap>().list(&all).await?.items.len(),
            self.api::<NetworkPolicy>().list(&all).await?.items.len(),
        ])
    }

    /// Waits for these numbers of Jobs, pods, Services, Secrets, ConfigMaps and NetworkPolicies.
    pub(crate) async fn until_counts(&self, what: &str, wanted: [usize; 6]) -> Result<()> {
        eventually(what, async || {
            let counts = self.counts().await?;
            harness::ensure!(counts == wanted, "{counts:?}");
            Ok(())
        })
        .await
    }
}

/// A condition of an object.
pub(crate) fn condition<'a>(data: &'a Value, type_: &str) -> Option<&'a Value> {
    data.pointer("/status/conditions")?.as_array()?.iter().find(|one| one["type"] == type_)
}

/// A text in the status.
pub(crate) fn text(flow: &DynamicObject, field: &str) -> String {
    flow.data.pointer(&format!("/status/{field}")).and_then(Value::as_str).unwrap_or_default().to_owned()
}
