//! `/getPod` and `/getPodFromRoLabel`: where a flow runs. `/getNetworks`: in which networks.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Map, Value, json};
use wasm_operator_sdk::{ApiExt as _, names};

use super::Facade;
use super::call;
use super::offload::service as shown;
use super::reply::{Answer, Fault};
use crate::children::{ACTION_CONTAINER, service_status};
use crate::{ids, labels};

impl Facade {
    pub(super) async fn get_pod(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let flow_id = call::flow_id(value, "/getPod")?;
        let pods = self.pods(labels::FLOW, &flow_id).await?;
        let Some(pod) = pick(&pods) else {
            return Err(Fault::internal(format!("POD not found for flowId: {flow_id}")));
        };
        if is_terminated(pod) {
            return Err(Fault::internal(format!("POD action container terminated [flowId: {flow_id}]")));
        }
        let mut record = record(pod, phase(pod), self.service_of(&flow_id).await?);
        record.remove(labels::EVENT);
        Ok(Answer::Json(Value::Object(record)))
    }

    pub(super) async fn get_pod_from_ro_label(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let name = call::text(value, "ro_vim_vm_name");
        let name = name.ok_or_else(|| Fault::bad_request("Did not receive ro_vim_vm_name for /getPodFromRo route."))?;
        let pods = self.pods(labels::VM_NAME, &name).await?;
        if pods.is_empty() {
            return Ok(Answer::Json(json!({ "_exists": "false" })));
        }
        let mut records = Vec::with_capacity(pods.len());
        for pod in &pods {
            let service = self.service_of(&label(pod, labels::FLOW)).await?;
            let phase = if is_terminated(pod) { Some("Terminated") } else { phase(pod) };
            records.push(Value::Object(record(pod, phase, service)));
        }
        Ok(Answer::Json(json!({ "_exists": "true", "records": records })))
    }

    /// Not in the original: the facts of the status about the pod's networks.
    pub(super) async fn get_networks(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let flow_id = call::flow_id(value, "/getNetworks")?;
        let flow = self.flow(&flow_id).await?.ok_or_else(|| Fault::internal(format!("there is no flow {flow_id}")))?;
        let status = flow.status.unwrap_or_default();
        let network = status.network.unwrap_or_default();
        let cluster_ip = status.service.and_then(|service| service.cluster_ip);
        Ok(Answer::Json(json!({
            "flowId": ids::flow_id(&crate::api::OffloadedAction { status: None, ..flow }),
            "pod_ips": network.pod_ips,
            "pod_cidrs": network.pod_cidrs,
            "service_cidrs": network.service_cidrs,
            "service_ip": cluster_ip,
            "network_policies": network.network_policies,
        })))
    }

    pub(super) async fn pods(&self, key: &str, value: &str) -> Result<Vec<Pod>, Fault> {
        let value = names::label_value(value);
        let mut pods = self.pods_of_flows().await?;
        pods.retain(|pod| pod.labels().get(key) == Some(&value));
        Ok(pods)
    }

    /// All that the cache has: the selector is that of the watch.
    pub(super) async fn pods_of_flows(&self) -> Result<Vec<Pod>, Fault> {
        let selector = ListParams::default().labels(&format!("{}={}", labels::JOB_TYPE, labels::JOB_TYPE_VALUE));
        Ok(self.api::<Pod>().list_cached(&selector).await.map_err(Fault::kubernetes)?.items)
    }

    async fn service_of(&self, flow_id: &str) -> Result<Value, Fault> {
        let name = ids::flow_name(&names::dns_label(flow_id));
        let service = self.api::<Service>().get_cached(&name).await.map_err(Fault::kubernetes)?;
        Ok(service.map_or_else(|| json!({}), |service| shown(&service_status(&service))))
    }
}

/// The running pod, else the first.
pub(super) fn pick(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().find(|pod| phase(pod) == Some("Running")).or_else(|| pods.first())
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn label(pod: &Pod, key: &str) -> String {
    pod.labels().get(key).cloned().unwrap_or_default()
}

/// What a label stood for before it was made valid.
fn original(pod: &Pod, key: &str) -> String {
    let annotation = pod.annotations().get(&format!("{}/{key}", crate::api::GROUP)).cloned();
    annotation.unwrap_or_else(|| label(pod, key))
}

/// Whether the action's container has ended.
pub(super) fn is_terminated(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let action = statuses.into_iter().flatten().find(|status| status.name == ACTION_CONTAINER);
    action.and_then(|status| status.state.as_ref()).is_some_and(|state| state.terminated.is_some())
}

/// What the original tells of a pod.
fn record(pod: &Pod, phase: Option<&str>, service: Value) -> Map<String, Value> {
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let container = spec.and_then(|spec| spec.containers.iter().find(|container| container.name == ACTION_CONTAINER));
    let variables = container.and_then(|container| container.env.as_ref()).into_iter().flatten();
    let action = variables.into_iter().find(|variable| variable.name == "__OW_ACTION_NAME");
    let record = json!({
        "action": action.and_then(|variable| variable.value.clone()).unwrap_or_default(),
        "event_uuid": original(pod, labels::EVENT),
        "flowId": label(pod, labels::FLOW),
        "vim-id": original(pod, labels::ACTIVATION),
        "pod_ip": status.pod_ip,
        "host_ip": status.host_ip,
        "phase": phase,
        "service": service,
    });
    match record {
        Value::Object(record) => record,
        _ => Map::new(),
    }
}
