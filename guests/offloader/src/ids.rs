//! Identifiers that a fresh instance finds again: they follow from the custom resource alone.

use kube::ResourceExt as _;
use wasm_operator_sdk::names::digest;

use crate::api::{OffloadedAction, OffloadedActionSpec};

/// Hexadecimal digits of a flow or job identifier, as many as a UUID without hyphens has.
const ID_DIGITS: usize = 32;
/// Hexadecimal digits of a digest: 64 bits.
const DIGEST_DIGITS: usize = 16;

/// The flow's identifier: the object's uid without hyphens. Empty for an object that was not read from the cluster.
#[must_use]
pub fn flow_id(action: &OffloadedAction) -> String {
    action.uid().unwrap_or_default().chars().filter(char::is_ascii_hexdigit).collect()
}

/// The identifier of the Job that this generation of the spec leads to.
#[must_use]
pub fn job_id(action: &OffloadedAction) -> String {
    let generation = action.metadata.generation.unwrap_or_default();
    digest(format!("{}/{generation}", flow_id(action)), ID_DIGITS)
}

/// The name of the Job, and of what belongs to it alone.
#[must_use]
pub fn job_name(job_id: &str) -> String {
    format!("offload-invoker-{job_id}")
}

/// The name of the Service, and of what belongs to the whole flow.
#[must_use]
pub fn flow_name(flow_id: &str) -> String {
    format!("offload-invoker-{flow_id}")
}

/// A short digest of a text.
#[must_use]
pub fn digest_of(text: &str) -> String {
    digest(text, DIGEST_DIGITS)
}

/// A digest of everything in the spec that only a new Job can bring about.
#[must_use]
pub fn template(spec: &OffloadedActionSpec) -> String {
    let parts = (
        (&spec.action, &spec.target_ref, &spec.image, &spec.activation_id, &spec.ro_vim_vm_name, &spec.event_uuid),
        (&spec.params, &spec.params_from, &spec.placement, spec.push_conf),
        // Only whether there is one: its content changes without a new pod.
        spec.runtime_conf.is_some(),
    );
    // These types are plain data: they can be written.
    digest(serde_json::to_vec(&parts).unwrap_or_default(), DIGEST_DIGITS)
}
