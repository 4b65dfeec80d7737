use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn watch(group: &str, plural: &str, namespaces: &[&str]) -> Watched {
    let namespaces = namespaces.iter().map(|namespace| (*namespace).to_owned()).collect();
    Watched { group: group.into(), plural: plural.into(), namespaces }
}

#[test]
fn a_program_may_watch_what_its_rules_let_it_list_and_watch() {
    let mut named = rule("", &["secrets"], &["*"], &[]);
    named.resource_names = vec!["one".into()];
    let rules = [
        rule("apps", &["deployments", "deployments/status"], &["get", "list", "watch"], &["a", "b"]),
        rule("", &["pods"], &["list"], &[]),
        rule("*", &["*"], &["*"], &[]),
        named,
    ];
    assert_eq!(watchable(&rules), [watch("apps", "deployments", &["a", "b"]), watch("*", "*", &[])]);
}

fn rule(group: &str, resources: &[&str], verbs: &[&str], namespaces: &[&str]) -> Rule {
    serde_json::from_value(serde_json::json!({
        "apiGroups": [group], "resources": resources, "verbs": verbs, "namespaces": namespaces,
    }))
    .unwrap()
}

fn guests() -> Vec<Granted> {
    let account = |namespace: &str, name: &str| ServiceAccountUser { namespace: namespace.into(), name: name.into() };
    let mut named = rule("", &["configmaps"], &["get"], &[]);
    named.resource_names = vec!["settings".into(), "on".into()];
    vec![
        Granted {
            name: "ring-0".into(),
            account: account("host", "guest-ring-0"),
            rules: vec![rule(
                "ring.wasm-operator.dev",
                &["testresources", "testresources/status"],
                &["get", "list", "watch", "patch"],
                &["ring-0", "ring-1"],
            )],
            watches: vec![watch("ring.wasm-operator.dev", "testresources", &["ring-0"])],
        },
        Granted {
            name: "wide".into(),
            account: account("team", "wide"),
            rules: vec![named, rule("*", &["*"], &["*"], &[])],
            watches: vec![watch("", "pods", &[]), watch("", "pods", &["ring-0"]), watch("", "secrets", &["ring-0"])],
        },
    ]
}

fn host() -> ServiceAccountUser {
    ServiceAccountUser { namespace: "host".into(), name: "wasm-operator".into() }
}

fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rbac").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        actual,
        "`UPDATE_EXPECTED=1 cargo test -p wasm-operator` renews it"
    );
}

#[test]
fn the_printed_roles_are_as_reviewed() {
    compare(
        "plain.yaml",
        &manifests(&guests(), &host(), Impersonation::Plain, false, Reviews::default()).yaml().unwrap(),
    );
    let reviews = Reviews { tokens: true, rights: true };
    compare(
        "constrained.yaml",
        &manifests(&guests(), &host(), Impersonation::Constrained, true, reviews).yaml().unwrap(),
    );
}

fn items(manifests: &Manifests) -> Vec<serde_json::Value> {
    let list: serde_json::Value = serde_json::from_str(&manifests.json().unwrap()).unwrap();
    list["items"].as_array().unwrap().clone()
}

#[test]
fn the_order_does_not_depend_on_the_configurations() {
    let mut reversed = guests();
    reversed.reverse();
    let text = |guests: &[Granted]| {
        manifests(guests, &host(), Impersonation::Plain, false, Reviews::default()).yaml().unwrap()
    };
    assert_eq!(text(&guests()), text(&reversed));
}

#[test]
fn yaml_and_json_say_the_same() {
    let manifests = manifests(&guests(), &host(), Impersonation::Constrained, false, Reviews::default());
    let yaml: Vec<serde_json::Value> = serde_saphyr::from_multiple(&manifests.yaml().unwrap()).unwrap();
    assert_eq!(yaml, items(&manifests));
}

#[test]
fn the_two_forms_of_impersonation_are_never_mixed() {
    let verbs = |form| {
        items(&manifests(&guests(), &host(), form, false, Reviews::default()))
            .iter()
            .map(ToString::to_string)
            .collect::<String>()
    };
    assert!(
        !verbs(Impersonation::Plain).contains("impersonate:")
            && verbs(Impersonation::Plain).contains(r#""impersonate""#)
    );
    assert!(!verbs(Impersonation::Constrained).contains(r#""impersonate""#));
}

#[test]
fn the_host_may_become_the_listed_accounts_only() {
    for form in [Impersonation::Plain, Impersonation::Constrained] {
        for item in items(&manifests(&guests(), &host(), form, false, Reviews::default())) {
            for rule in item["rules"].as_array().into_iter().flatten() {
                let is_about_accounts = rule["resources"].as_array().unwrap().iter().any(|r| r == "serviceaccounts");
                assert!(
                    !is_about_accounts || rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty()),
                    "{rule}"
                );
            }
        }
    }
}

#[test]
fn hosts_with_guests_of_the_same_name_have_no_role_in_common() {
    let account = |namespace: &str, name: &str| ServiceAccountUser { namespace: namespace.into(), name: name.into() };
    let hosts = [account("host", "wasm-operator"), account("other", "wasm-operator"), account("host", "second")];
    for form in [Impersonation::Plain, Impersonation::Constrained] {
        let mut names = BTreeSet::new();
        for host in &hosts {
            for item in items(&manifests(&guests(), host, form, true, Reviews::default())) {
                let name = (
                    item["kind"].to_string(),
                    item["metadata"]["namespace"].to_string(),
                    item["metadata"]["name"].to_string(),
                );
                assert!(item["kind"] == "ServiceAccount" || names.insert(name), "{item}");
            }
        }
    }
}

#[test]
fn an_account_of_two_guests_is_printed_once() {
    let mut guests = guests();
    guests[1].account = guests[0].account.clone();
    let accounts = items(&manifests(&guests, &host(), Impersonation::Plain, false, Reviews::default()));
    assert_eq!(accounts.iter().filter(|item| item["kind"] == "ServiceAccount").count(), 1);
}

#[test]
fn a_host_account_is_a_namespace_and_a_name() {
    assert_eq!(account("a/b").unwrap().to_string(), "system:serviceaccount:a:b");
    for bad in ["", "a", "a/", "/b", "a/b/c", "A/b"] {
        assert!(account(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_host_may_review_callers_only_where_there_are_some() {
    let resources = |reviews| {
        let items = items(&manifests(&guests(), &host(), Impersonation::Plain, false, reviews));
        let text: String = items.iter().map(ToString::to_string).collect();
        (text.contains(r#""tokenreviews""#), text.contains(r#""subjectaccessreviews""#))
    };
    assert_eq!(resources(Reviews::default()), (false, false));
    assert_eq!(resources(Reviews { rights: true, ..Reviews::default() }), (false, true));
    assert_eq!(resources(Reviews { tokens: true, ..Reviews::default() }), (true, true));
}
