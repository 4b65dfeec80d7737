//! Deleting flows: the custom resource goes, and everything that belongs to it with it.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Map, Value};
use wasm_operator_sdk::names;

use super::Facade;
use super::call;
use super::reply::{Answer, Fault};
use crate::api::OffloadedAction;
use crate::fqn::QualifiedName;
use crate::{ids, labels};

impl Facade {
    /// A flow that is not there is what was wanted.
    pub(super) async fn delete_flow(&self, value: &Map<String, Value>, path: &str) -> Result<Answer, Fault> {
        let flow_id = call::flow_id(value, path)?;
        if let Some(flow) = self.flow(&flow_id).await? {
            self.delete(&flow).await?;
        }
        Ok(Answer::Text("OK"))
    }

    pub(super) async fn delete_by_label(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let (Some(name), Some(wanted)) = (call::text(value, "label_name"), call::text(value, "label_value")) else {
            let message = "Did not receive label_name and/or label_value for /deleteJobFromLabel route.";
            return Err(Fault::bad_request(message));
        };
        let flows = self.flows().await?;
        for flow in flows.iter().filter(|flow| has_label(flow, &name, &wanted)) {
            self.delete(flow).await?;
        }
        Ok(Answer::Text("OK"))
    }

    async fn delete(&self, flow: &OffloadedAction) -> Result<(), Fault> {
        // Another flow of the same name is not meant.
        let preconditions = Preconditions { uid: flow.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api::<OffloadedAction>().delete(&flow.name_any(), &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(drop).map_err(Fault::kubernetes),
        }
    }
}

/// Whether the flow's Jobs have this label, or would have it.
pub(super) fn has_label(flow: &OffloadedAction, name: &str, value: &str) -> bool {
    let placement = flow.status.as_ref().and_then(|status| status.placement.clone());
    let placement = placement.or_else(|| flow.spec.placement.clone()).unwrap_or_default();
    // Names without a namespace depend on the target; the label of the flow itself, which the façade sets, does not.
    let Ok(action) = QualifiedName::parse(&flow.spec.action, "_") else { return false };
    let flow_id = ids::flow_id(flow);
    let job_id = flow.status.as_ref().and_then(|status| status.job_id.clone()).unwrap_or_default();
    let mut all = labels::of_job(labels::of_spec(&flow.spec, &action, &placement), &flow_id, &job_id).labels;
    all.extend(flow.labels().clone());
    all.get(name).is_some_and(|there| *there == names::label_value(value))
}
