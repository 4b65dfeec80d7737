//! The NetworkPolicy of a flow.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{flow_metadata, owned};
use crate::api::OffloadedAction;
use crate::{ids, labels};

/// Who may reach the pods of the flow. None: the flow says nothing about it.
#[must_use]
pub fn network_policy(action: &OffloadedAction) -> Option<NetworkPolicy> {
    let source = action.spec.network_policy.as_ref()?;
    let flow_id = ids::flow_id(action);
    // A rule without peers would let everybody in, no rule lets nobody in. Not an empty list: the API server would take each
    // apply of one for a change.
    let ingress = (!source.ingress_from.is_empty())
        .then(|| vec![NetworkPolicyIngressRule { from: Some(source.ingress_from.clone()), ports: None }]);
    let selector = LabelSelector {
        match_labels: Some([(labels::FLOW.to_owned(), flow_id.clone())].into()),
        ..LabelSelector::default()
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(selector),
        ingress,
        policy_types: Some(vec!["Ingress".to_owned()]),
        ..NetworkPolicySpec::default()
    };
    let metadata = flow_metadata(ids::flow_name(&flow_id), action);
    Some(owned(NetworkPolicy { metadata, spec: Some(spec) }, action))
}
