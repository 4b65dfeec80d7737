//! Labels by which flows are found: those of the original, made valid where they are not.

use std::collections::BTreeMap;

use wasm_operator_sdk::names;

use crate::api::{GROUP, OffloadedActionSpec, Placement};
use crate::fqn::QualifiedName;

/// The label of everything that belongs to a flow.
pub const FLOW: &str = "flowId";
/// The label of everything that belongs to a Job.
pub const JOB: &str = "jobId";
/// The label by which Jobs and pods are watched.
pub const JOB_TYPE: &str = "job-type";
/// Its value.
pub const JOB_TYPE_VALUE: &str = "ow-offload-job";
/// The label with the action's name. Monitoring joins by it.
pub const ACTION: &str = "ow_action";
/// The label with the activation. Monitoring joins by it.
pub const ACTIVATION: &str = "vim_id";
/// The label with the orchestrator's name of the VM.
pub const VM_NAME: &str = "ro_vim_vm_name";
/// The label with the event.
pub const EVENT: &str = "event_uuid";
/// Begins the labels of a node selector.
pub const SELECTOR_PREFIX: &str = "FAAS_";
/// The annotation that leads from a pod to its custom resource: a name can be longer than a label's value.
pub const OWNER: &str = "offloader.wasm-operator.dev/offloaded-action";

/// Labels, and the annotations with what could not be a label's value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Valid.
    pub labels: BTreeMap<String, String>,
    /// The original of each value that had to be changed.
    pub annotations: BTreeMap<String, String>,
}

impl Labels {
    /// Adds a label with a value that somebody else chose.
    fn add(&mut self, key: &str, value: &str) {
        let valid = names::label_value(value);
        if valid != value {
            self.annotations.insert(format!("{GROUP}/{key}"), value.to_owned());
        }
        self.labels.insert(key.to_owned(), valid);
    }
}

/// The label that stands for an entry of a node selector. A prefix with a slash would make `FAAS_` invalid.
#[must_use]
pub fn selector_key(key: &str) -> String {
    format!(
        "{SELECTOR_PREFIX}{}",
        names::label_value_within(&key.replace('/', "_"), names::MAX_LENGTH - SELECTOR_PREFIX.len())
    )
}

/// What the original labels a flow with, without the identifiers.
#[must_use]
pub fn of_spec(spec: &OffloadedActionSpec, name: &QualifiedName, placement: &Placement) -> Labels {
    let mut labels = Labels::default();
    labels.add(ACTION, &name.label());
    labels.add(ACTIVATION, &spec.activation_id);
    labels.add(VM_NAME, &spec.ro_vim_vm_name);
    labels.add(EVENT, &spec.event_uuid);
    for (key, value) in &placement.node_selector {
        labels.add(&selector_key(key), value);
    }
    labels
}

/// What a Job and all that belongs to it is labelled with.
#[must_use]
pub fn of_job(mut labels: Labels, flow_id: &str, job_id: &str) -> Labels {
    labels.add(FLOW, flow_id);
    labels.add(JOB, job_id);
    labels.add(JOB_TYPE, JOB_TYPE_VALUE);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> OffloadedActionSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_labels_are_those_of_the_original() {
        let spec = spec(serde_json::json!({"action": "/guest/5g-media/action_ping", "activationID": "a1"}));
        let placement =
            Placement { node_selector: [("processor".to_owned(), "gpu".to_owned())].into(), ..Placement::default() };
        let name = QualifiedName::parse(&spec.action, "_").unwrap();
        let labels = of_job(of_spec(&spec, &name, &placement), "f", "j");
        let expected = [
            ("ow_action", "guest_5g-media_action_ping"),
            ("vim_id", "a1"),
            ("ro_vim_vm_name", "na"),
            ("event_uuid", "na"),
            ("FAAS_processor", "gpu"),
            ("flowId", "f"),
            ("jobId", "j"),
            ("job-type", "ow-offload-job"),
        ];
        assert_eq!(labels.labels, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert!(labels.annotations.is_empty());
    }

    #[test]
    fn what_cannot_be_a_label_is_changed_and_kept_in_an_annotation() {
        let spec = spec(serde_json::json!({"action": "ping", "roVimVmName": "my VM 1", "eventUUID": "é"}));
        let name = QualifiedName::parse(&spec.action, "_").unwrap();
        let labels = of_spec(&spec, &name, &Placement::default());
        for (key, original) in [(ACTION, "__ping"), (VM_NAME, "my VM 1"), (EVENT, "é")] {
            let value = &labels.labels[key];
            assert!(
                value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
                "{value}"
            );
            assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric()), "{value}");
            let kept = labels.annotations.get(&format!("{GROUP}/{key}"));
            assert_eq!(kept.map_or(value.as_str(), String::as_str), original);
        }
        assert_ne!(labels.labels[VM_NAME], "my-VM-1", "another name must not become the same label");
    }

    #[test]
    fn a_selector_key_with_a_prefix_becomes_one_word() {
        assert_eq!(selector_key("processor"), "FAAS_processor");
        assert_eq!(selector_key("kubernetes.io/hostname"), "FAAS_kubernetes.io_hostname");
        assert!(selector_key(&"k".repeat(100)).len() <= 63);
    }
}
