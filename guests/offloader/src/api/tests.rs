use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::*;

const CRDS: &str = include_str!("../../crds.yaml");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crds.yaml");
const HEAD: &str = "# Built from src/api; a test compares the two. `UPDATE_EXPECTED=1 cargo test --release -p offloader` writes it anew.\n";

#[test]
fn the_crd_file_is_fresh() {
    let built = [OffloadedAction::crd(), OffloadTarget::crd()];
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let documents: Vec<String> = built.iter().map(|crd| serde_saphyr::to_string(crd).unwrap()).collect();
        std::fs::write(PATH, format!("{HEAD}{}", documents.join("---\n"))).unwrap();
        return;
    }
    let file: Vec<Value> = CRDS.split("---\n").map(|crd| serde_saphyr::from_str(crd).unwrap()).collect();
    let built: Vec<Value> = built.iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert!(file == built, "`crds.yaml` is stale: run `UPDATE_EXPECTED=1 cargo test --release -p offloader`");
}

fn spec(spec: Value) -> OffloadedActionSpec {
    serde_json::from_value(spec).unwrap()
}

#[test]
fn what_is_left_out_has_the_originals_defaults() {
    let spec = spec(json!({"action": "/guest/ping", "image": "i:1"}));
    assert_eq!(
        (spec.activation_id.as_str(), spec.ro_vim_vm_name.as_str(), spec.event_uuid.as_str()),
        ("42", "na", "na")
    );
    assert_eq!((spec.time_limit_seconds, spec.backoff_limit, spec.reconfigure_timeout_seconds), (3600, 0, 55));
    assert_eq!(spec.service, ServiceSource { type_: ServiceType::NodePort, ports: vec![] });
    assert!(!spec.keep_failed && !spec.suspend && !spec.push_conf);
}

#[test]
fn a_status_is_read_as_it_was_written() {
    let status = OffloadedActionStatus {
        job_id: Some("j".to_owned()),
        previous_job_id: Some("p".to_owned()),
        previous: Some(PreviousRun { template: "t".to_owned(), ..PreviousRun::default() }),
        phase: Phase::Reconfiguring,
        ..OffloadedActionStatus::default()
    };
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(
        (&written["jobID"], &written["previousJobID"], &written["phase"]),
        (&json!("j"), &json!("p"), &json!("Reconfiguring"))
    );
    assert_eq!(serde_json::from_value::<OffloadedActionStatus>(written).unwrap(), status);
}

#[test]
fn the_published_reasons_are_words_and_named_once() {
    let mut all = reason::ALL.to_vec();
    assert!(
        all.iter()
            .all(|word| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(char::is_alphanumeric))
    );
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), reason::ALL.len());
}
