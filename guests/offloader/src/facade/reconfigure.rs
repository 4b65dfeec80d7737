//! `/reconfigure`: new parameters and a new placement for a flow that runs.

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use serde_json::{Map, Value};
use wasm_operator_sdk::ApiExt as _;

use super::Facade;
use super::call::{self, Call};
use super::reply::{Answer, Fault};
use crate::api::{OffloadedAction, OffloadedActionSpec};
use crate::{ids, labels};

/// Attempts of a change that somebody else's change gets in the way of.
const MOST_ATTEMPTS: usize = 3;

impl Facade {
    pub(super) async fn reconfigure(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let call = call::offload(value, &self.settings)?;
        let flow_id = call::text(value, "flowId")
            .ok_or_else(|| Fault::page(StatusCode::BAD_REQUEST, "Required parameter \"flowId\" not provided"))?;
        self.look_up(&call).await?;
        self.check_pod(&flow_id).await?;
        let flow = self.flow(&flow_id).await?;
        let Some(name) = flow.and_then(|flow| flow.metadata.name) else {
            return Err(Fault::internal(format!("there is no flow {flow_id}")));
        };
        let api = self.api::<OffloadedAction>();
        for _ in 0..MOST_ATTEMPTS {
            // Fresh: what the cache holds may be older than what is written over.
            let mut flow = api.get(&name).await.map_err(Fault::kubernetes)?;
            if ids::flow_id(&flow) != flow_id {
                break;
            }
            change(&mut flow.spec, &call);
            match api.replace(&name, &PostParams::default(), &flow).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(|_| Answer::Text("OK")).map_err(Fault::kubernetes),
            }
        }
        Err(Fault::internal(format!("flow {flow_id} is being changed by others")))
    }

    /// Exactly one pod, and it runs: what the original asks for.
    async fn check_pod(&self, flow_id: &str) -> Result<(), Fault> {
        let selector = ListParams::default().labels(&format!(
            "{}={},{}={}",
            labels::FLOW,
            wasm_operator_sdk::names::label_value(flow_id),
            labels::JOB_TYPE,
            labels::JOB_TYPE_VALUE
        ));
        let pods = self.api::<Pod>().list_cached(&selector).await.map_err(Fault::kubernetes)?.items;
        let [pod] = pods.as_slice() else {
            return Err(Fault::internal(format!("No POD or found more then one under flowId {flow_id}")));
        };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if phase != "Running" {
            let message = format!("Failed sanity check: POD under flowId {flow_id} in other state {phase}");
            return Err(Fault::internal(message));
        }
        Ok(())
    }
}

/// What a reconfiguration changes. Service, target and time limit stay, and so do names that the caller does not repeat.
pub(super) fn change(spec: &mut OffloadedActionSpec, call: &Call) {
    spec.action.clone_from(&call.spec.action);
    spec.params.clone_from(&call.spec.params);
    // Without an annotation the flow goes wherever there is room; capabilities stay with it.
    let mut placement = call.placement.clone().unwrap_or_default();
    let kept = spec.placement.as_ref().map(|old| old.capabilities.clone()).unwrap_or_default();
    for capability in kept {
        if !placement.capabilities.contains(&capability) {
            placement.capabilities.push(capability);
        }
    }
    spec.placement = Some(placement);
    let [activation, vm_name, event] = call.given;
    if activation {
        spec.activation_id.clone_from(&call.spec.activation_id);
    }
    if vm_name {
        spec.ro_vim_vm_name.clone_from(&call.spec.ro_vim_vm_name);
    }
    if event {
        spec.event_uuid.clone_from(&call.spec.event_uuid);
    }
}
