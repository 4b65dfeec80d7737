//! What the guest asks for, as the administrator sees it.

use serde_json::{Value, json};
use wasm_operator_sdk::bindings::Guest as _;

use super::*;

const PERMISSIONS: &str = include_str!("../permissions.yaml");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/permissions.yaml");
const HEAD: &str = "# What the guest asks for, as `permissions` of its configuration takes it; a test compares the two.\n\
    # `UPDATE_EXPECTED=1 cargo test --release -p offloader` writes it anew. Add `namespaces` to the rules, as in examples/wasm_config.yaml.\n";

fn asked() -> Vec<Value> {
    let description = WasmOperatorGuest::describe().unwrap();
    let mut rules: Vec<(String, String, Vec<String>)> = Vec::new();
    for rule in description.permissions {
        let key = (rule.api_groups.join(","), rule.resources.join(","));
        match rules.iter_mut().find(|known| (&known.0, &known.1) == (&key.0, &key.1)) {
            Some(known) => known.2.extend(rule.verbs),
            None => rules.push((key.0, key.1, rule.verbs)),
        }
    }
    for (_, _, verbs) in &mut rules {
        verbs.sort_unstable();
        verbs.dedup();
    }
    rules.sort();
    rules
        .into_iter()
        .map(|(group, resource, verbs)| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs}))
        .collect()
}

#[test]
fn the_permissions_file_is_what_the_guest_asks_for() {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let rules: Vec<String> = asked().iter().map(|rule| format!("- {rule}\n")).collect();
        std::fs::write(PATH, format!("{HEAD}{}", rules.concat())).unwrap();
        return;
    }
    let file: Vec<Value> = serde_saphyr::from_str(PERMISSIONS).unwrap();
    assert!(file == asked(), "`permissions.yaml` is stale: run `UPDATE_EXPECTED=1 cargo test --release -p offloader`");
}

#[test]
fn the_guest_asks_for_no_more_than_it_uses() {
    let verbs = |resource: &str| {
        let rules = asked();
        let rule = rules.iter().find(|rule| rule["resources"] == json!([resource])).cloned().unwrap_or_default();
        rule["verbs"].as_array().cloned().unwrap_or_default()
    };
    assert!(
        asked().iter().all(|rule| !rule.to_string().contains("deletecollection") && !rule.to_string().contains('*'))
    );
    assert_eq!(verbs("secrets"), ["create", "delete", "get", "patch"], "no list: keys of others are not looked for");
    assert_eq!(verbs("pods"), ["get", "list", "watch"], "the Job controller makes pods");
    assert_eq!(verbs("pods/log"), ["get"]);
    assert_eq!((verbs("nodes"), verbs("servicecidrs")), (vec![json!("get")], vec![json!("list")]));
    for never in ["serviceaccounts", "roles", "pods/exec", "namespaces"] {
        assert!(verbs(never).is_empty(), "{never}");
    }
}

#[test]
fn each_kind_is_watched_once_and_the_status_wakes_nobody() {
    let description = WasmOperatorGuest::describe().unwrap();
    let flows = description.controllers.iter().find(|one| one.name == "offloadedaction").unwrap();
    let kinds: Vec<&str> = flows.watches.iter().map(|watch| watch.of.kind.as_str()).collect();
    assert_eq!(kinds, ["Job", "Pod", "Service", "OffloadTarget"]);
    for primary in description.controllers.iter().map(|one| &one.primary) {
        assert!(!primary.changed.is_empty(), "a write of the status would wake the guest that wrote it");
    }
    for watch in flows.watches.iter().filter(|watch| watch.of.kind != "OffloadTarget") {
        assert!(!watch.label_selector.is_empty(), "{} of others are of no concern", watch.of.kind);
    }
}
