//! ConfigMaps: large parameters of a Job, and the runtime configuration of a flow.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Run, flow_metadata, owned};
use crate::api::OffloadedAction;
use crate::ids;
use crate::params::Place;

/// The entry with parameters.
pub(super) const PARAMS: &str = "params";

/// The name of the ConfigMap with large parameters.
#[must_use]
pub fn params_name(job_id: &str) -> String {
    format!("{}-params", ids::job_name(job_id))
}

/// The name of the ConfigMap with the runtime configuration.
#[must_use]
pub fn conf_name(flow_id: &str) -> String {
    format!("{}-conf", ids::flow_name(flow_id))
}

/// Large parameters. None: they are small, or secret.
#[must_use]
pub fn params(run: &Run<'_>) -> Option<ConfigMap> {
    (run.params.place == Place::ConfigMap).then(|| {
        let data = [(PARAMS.to_owned(), run.params.text.clone())].into();
        let metadata = run.metadata(params_name(&run.job_id));
        owned(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }, run.action)
    })
}

/// The runtime configuration: each entry is a file below `/conf`. None: the flow has none.
#[must_use]
pub fn conf(action: &OffloadedAction) -> Option<ConfigMap> {
    action.spec.runtime_conf.as_ref().map(|entries| {
        let metadata = flow_metadata(conf_name(&ids::flow_id(action)), action);
        owned(ConfigMap { metadata, data: Some(entries.clone()), ..ConfigMap::default() }, action)
    })
}
