//! `/conf/<ip>`: one entry of the runtime configuration of the flow with this address.

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::Facade;
use super::call;
use super::reply::{Answer, Fault};
use crate::api::OffloadedAction;
use crate::{ids, labels};

impl Facade {
    pub(super) async fn conf(&self, address: &str, value: &Map<String, Value>) -> Result<Answer, Fault> {
        if value.get("param_name") == Some(&Value::Null) {
            return Err(Fault::bad_request("Did not receive param_name for /conf route."));
        }
        let name = call::text(value, "param_name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Fault::internal("`param_name` is empty"))?;
        let text = entry(value.get("param_value"));
        let flows = self.flows().await?;
        // A pod may have its address before the flow's status tells it.
        let pods = self.pods_of_flows().await?;
        let pod = pods.iter().find(|pod| pod.status.as_ref().is_some_and(|s| s.pod_ip.as_deref() == Some(address)));
        let flow_id = pod.and_then(|pod| pod.labels().get(labels::FLOW));
        let flow = flows.iter().find(|flow| is_at(flow, address) || flow_id == Some(&ids::flow_id(flow)));
        let flow = flow.ok_or_else(|| Fault::internal(format!("no flow has the address {address}")))?;
        let patch = Patch::Merge(json!({"spec": {"runtimeConf": {name: text}}}));
        let changed = self.api::<OffloadedAction>().patch(&flow.name_any(), &PatchParams::default(), &patch).await;
        changed.map(|_| Answer::Text("OK")).map_err(Fault::kubernetes)
    }
}

/// Whether this is the address of the flow's pod or of its Service.
pub(super) fn is_at(flow: &OffloadedAction, address: &str) -> bool {
    let Some(status) = &flow.status else { return false };
    let cluster_ip = status.service.as_ref().and_then(|service| service.cluster_ip.as_deref());
    status.pod_ip.as_deref() == Some(address) || cluster_ip == Some(address)
}

/// What the file will hold: a text as it is, everything else as JSON. Nothing is too small to be written.
pub(super) fn entry(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
