use proptest::prelude::*;

use super::*;
use crate::request::ApiRequest;

fn list(text: &str) -> Vec<String> {
    text.split_whitespace().map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
}

fn rule(groups: &str, resources: &str, verbs: &str) -> Rule {
    Rule {
        api_groups: list(groups),
        resources: list(resources),
        verbs: list(verbs),
        resource_names: Vec::new(),
        namespaces: Vec::new(),
    }
}

fn within(mut rule: Rule, namespaces: &str) -> Rule {
    rule.namespaces = list(namespaces);
    rule
}

fn named(mut rule: Rule, names: &str) -> Rule {
    rule.resource_names = list(names);
    rule
}

fn permissions(rules: &[Rule]) -> Permissions {
    Permissions::new(rules.to_vec(), Some("wasm-operator".to_owned())).unwrap()
}

fn check(rules: &[Rule], method: &str, path: &str, content: ContentType) -> Result<(), String> {
    let ApiRequest::Resource(request) = ApiRequest::parse(method, path).unwrap() else { panic!("{path}") };
    permissions(rules).check(&request, content).map_err(|denied| denied.message("ring"))
}

fn allowed(rules: &[Rule], method: &str, path: &str) -> bool {
    check(rules, method, path, ContentType::Json).is_ok()
}

#[test]
fn nothing_is_allowed_by_default() {
    for (method, path) in [
        ("GET", "/api/v1/namespaces/a/configmaps/x"),
        ("GET", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/namespaces/a/configmaps"),
        ("POST", "/api/v1/namespaces"),
    ] {
        assert!(!allowed(&[], method, path), "{method} {path}");
    }
}

#[test]
fn every_part_of_a_rule_must_match() {
    let rules = [within(rule("core", "configmaps", "get list"), "a b")];
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps/x"));
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/b/configmaps"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/c/configmaps/x"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/a/secrets/x"));
    assert!(!allowed(&rules, "GET", "/apis/apps/v1/namespaces/a/configmaps/x"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps?watch=true"));
    assert!(!allowed(&rules, "PUT", "/api/v1/namespaces/a/configmaps/x"));
}

#[test]
fn parts_of_two_rules_do_not_add_up() {
    let rules = [within(rule("core", "configmaps", "get"), "a"), within(rule("core", "secrets", "get"), "b")];
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/a/secrets/x"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/b/configmaps/x"));
}

#[test]
fn a_namespaced_rule_never_allows_a_cluster_wide_list_or_watch() {
    let rules = [within(rule("*", "*", "*"), "a")];
    assert!(!allowed(&rules, "GET", "/api/v1/configmaps"));
    assert!(!allowed(&rules, "GET", "/api/v1/configmaps?watch=1"));
    assert!(!allowed(&rules, "GET", "/api/v1/configmaps?fieldSelector=metadata.namespace=a"));
    assert!(!allowed(&rules, "GET", "/api/v1/nodes/n"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces"));
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/a"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/b"));
}

#[test]
fn deletecollection_is_a_right_of_its_own() {
    let rules = [rule("core", "configmaps", "delete")];
    assert!(allowed(&rules, "DELETE", "/api/v1/namespaces/a/configmaps/x"));
    assert!(!allowed(&rules, "DELETE", "/api/v1/namespaces/a/configmaps"));
}

#[test]
fn names_restrict_what_has_no_name() {
    let rules = [named(rule("core", "configmaps", "*"), "x")];
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps/x"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps/y"));
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps"));
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=x"));
    assert!(!allowed(&rules, "POST", "/api/v1/namespaces/a/configmaps"));
    assert!(!allowed(&rules, "DELETE", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=x"));
}

#[test]
fn a_star_leaves_subresources_out() {
    let rules = [rule("*", "*", "*")];
    assert!(allowed(&rules, "PATCH", "/apis/apps/v1/namespaces/a/deployments/x"));
    assert!(!allowed(&rules, "PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status"));
    let rules = [rule("apps", "deployments/status", "patch")];
    assert!(allowed(&rules, "PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status"));
    assert!(!allowed(&rules, "PATCH", "/apis/apps/v1/namespaces/a/deployments/x"));
}

#[test]
fn apply_needs_patch_and_create() {
    let path = "/api/v1/namespaces/a/configmaps/x";
    let patch = [rule("core", "configmaps", "patch")];
    assert!(check(&patch, "PATCH", path, ContentType::MergePatch).is_ok());
    assert!(check(&patch, "PATCH", path, ContentType::Apply).unwrap_err().contains("may not `create`"));
    assert!(check(&[rule("core", "configmaps", "create")], "PATCH", path, ContentType::Apply).is_err());
    assert!(check(&[rule("core", "configmaps", "patch create")], "PATCH", path, ContentType::Apply).is_ok());
}

#[test]
fn put_on_a_lease_needs_create_as_well() {
    let path = "/apis/coordination.k8s.io/v1/namespaces/a/leases/x";
    assert!(!allowed(&[rule("coordination.k8s.io", "leases", "update")], "PUT", path));
    assert!(allowed(&[rule("coordination.k8s.io", "leases", "update create")], "PUT", path));
}

#[test]
fn the_hosts_namespace_is_closed_whatever_the_rules_say() {
    let rules = [rule("*", "*", "*")];
    assert!(!allowed(&rules, "GET", "/api/v1/namespaces/wasm-operator/secrets/x"));
    assert!(!allowed(&rules, "DELETE", "/api/v1/namespaces/wasm-operator"));
    assert!(allowed(&rules, "GET", "/api/v1/namespaces/wasm-operator2/secrets/x"));
}

#[test]
fn dangerous_subresources_are_refused_even_when_a_rule_names_them() {
    let rules = [rule("*", "pods/exec pods/attach serviceaccounts/token pods/binding services/proxy", "*")];
    for path in [
        "/api/v1/namespaces/a/pods/x/exec",
        "/api/v1/namespaces/a/pods/x/attach",
        "/api/v1/namespaces/a/pods/x/binding",
        "/api/v1/namespaces/a/serviceaccounts/x/token",
        "/api/v1/namespaces/a/services/x/proxy",
    ] {
        assert!(check(&rules, "POST", path, ContentType::Json).unwrap_err().contains("never granted"), "{path}");
    }
}

#[test]
fn a_denial_names_guest_verb_resource_namespace_and_the_rule_that_would_allow_it() {
    let message =
        check(&[], "PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status", ContentType::MergePatch).unwrap_err();
    for part in [
        "`ring`",
        "`patch`",
        "`deployments/status`",
        "(apps)",
        "namespace `a`",
        r#"{"apiGroups":["apps"],"resources":["deployments/status"],"verbs":["patch"],"namespaces":["a"]}"#,
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let suggested: Rule = serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap();
    assert!(allowed(&[suggested], "PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status"));
}

#[test]
fn malformed_rules_are_refused() {
    for bad in [
        rule("", "configmaps", "get"),
        rule("core", "", "get"),
        rule("core", "configmaps", ""),
        rule("core", "ConfigMaps", "get"),
        rule("core", "pods/status/x", "get"),
        rule("core", "*/status", "get"),
        rule("core", "configmaps", "GET"),
        rule("Apps", "deployments", "get"),
        within(rule("core", "configmaps", "get"), "*"),
        within(rule("core", "configmaps", "get"), "a/b"),
        named(rule("core", "configmaps", "get"), ".."),
        named(rule("core", "configmaps", "get"), "a%2Fb"),
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
        assert!(Permissions::new(vec![bad], None).is_err());
    }
    assert!(
        named(rule("core rbac.authorization.k8s.io *", "configmaps pods/log *", "get *"), "system:x")
            .validate()
            .is_ok()
    );
}

// Rule 19
#[test]
fn some_rules_can_never_be_granted() {
    let reason = |rule: &Rule| check_grantable(rule, Some("host")).unwrap_err();
    for verb in ["impersonate", "bind", "escalate", "impersonate-on:serviceaccount:get"] {
        assert_eq!(reason(&rule("*", "*", verb)), Ungrantable::Escalation(verb.to_owned()));
    }
    assert!(matches!(reason(&rule("core", "pods", "use")), Ungrantable::UnknownVerb(_)));
    assert_eq!(reason(&rule("core", "serviceaccounts/token", "create")), Ungrantable::Token);
    for resource in [
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "pods/ephemeralcontainers",
        "pods/binding",
        "pods/proxy",
        "nodes/proxy",
        "services/proxy",
        "certificatesigningrequests/approval",
        "namespaces/finalize",
        "deployments/eviction",
    ] {
        assert!(matches!(reason(&rule("*", resource, "*")), Ungrantable::Subresource(_)), "{resource}");
    }
    assert!(matches!(reason(&within(rule("core", "configmaps", "get"), "a host")), Ungrantable::HostNamespace(_)));
    for fine in [
        rule("core", "pods/log pods/eviction pods/status", "*"),
        rule("*", "*", "*"),
        rule("apps", "deployments/scale", "patch"),
    ] {
        assert_eq!(check_grantable(&fine, Some("host")), Ok(()));
    }
}

#[test]
fn rules_that_give_a_way_round_are_warned_of() {
    let warned = |rule: Rule, part: &str| {
        let all = warnings(&rule);
        assert!(all.iter().any(|w| w.contains(part)), "{part}: {all:?}");
    };
    warned(within(rule("core", "pods", "create"), "a"), "any service account");
    warned(within(rule("apps", "deployments", "patch"), "a"), "any service account");
    warned(within(rule("core", "secrets", "create"), "a"), "token of any service account");
    warned(within(rule("core", "secrets", "get"), "a"), "credentials");
    warned(rule("rbac.authorization.k8s.io", "rolebindings", "create"), "rights of others");
    warned(rule("core", "configmaps", "list"), "host's own namespace");
    warned(rule("*", "*", "get"), "installed later");
    assert_eq!(warnings(&within(rule("core", "configmaps", "*"), "a")), Vec::<String>::new());
    assert_eq!(warnings(&within(rule("core", "pods", "get list watch delete"), "a")), Vec::<String>::new());
}

#[test]
fn what_is_granted_is_not_missing() {
    let asked = [rule("core", "configmaps", "get list"), within(rule("apps", "deployments", "patch"), "a")];
    assert_eq!(missing(&asked, &asked), []);
    assert_eq!(missing(&asked, &[rule("*", "*", "*")]), []);
    assert_eq!(missing(&[], &[]), []);
}

#[test]
fn only_the_missing_part_is_named() {
    let asked = [rule("core", "configmaps secrets", "get list watch")];
    let granted = [rule("core", "configmaps", "get list watch"), rule("core", "secrets", "get")];
    assert_eq!(missing(&asked, &granted), [rule("core", "secrets", "list watch")]);
    assert_eq!(
        missing(
            &[within(rule("core", "configmaps", "get"), "a b c")],
            &[within(rule("core", "configmaps", "get"), "b")]
        ),
        [within(rule("core", "configmaps", "get"), "a c")]
    );
    // A cluster-wide right is not covered by any number of namespaces.
    assert_eq!(
        missing(&[rule("core", "pods", "list")], &[within(rule("core", "pods", "list"), "a b")]),
        [rule("core", "pods", "list")]
    );
    assert_eq!(missing(&[rule("core", "pods/log", "get")], &[rule("*", "*", "*")]), [rule("core", "pods/log", "get")]);
    assert_eq!(
        missing(&[rule("core", "pods", "*")], &[rule("core", "pods", "get list watch create update patch")]),
        [rule("core", "pods", "delete deletecollection")]
    );
}

#[test]
fn a_huge_rule_is_reported_as_a_whole_and_cheaply() {
    let many: String = (0..2_000).map(|n| format!("r{n} ")).collect();
    let huge = within(rule("core", &many, "get list"), &many);
    assert_eq!(missing(std::slice::from_ref(&huge), &[]), std::slice::from_ref(&huge));
    assert_eq!(missing(std::slice::from_ref(&huge), std::slice::from_ref(&huge)), []);
}

#[test]
fn only_service_accounts_are_identities() {
    assert!(ServiceAccountUser::parse("system:serviceaccount:host:guest-ring").is_some());
    for bad in [
        "",
        "admin",
        "system:admin",
        "system:serviceaccount::x",
        "system:serviceaccount:a:",
        "system:serviceaccount:a:b:c",
        "system:serviceaccount:A:b",
        "system:serviceaccount:a:b c",
        "system:serviceaccount:a:b\r\nx",
        "system:node:x",
        "system:serviceaccount:a",
    ] {
        assert!(ServiceAccountUser::parse(bad).is_none(), "{bad}");
    }
}

// Rule 39
#[test]
fn labels_are_made_of_words_that_the_rules_hold() {
    let some = permissions(&[
        rule("core apps", "pods/log deployments", "get"),
        rule("*", "widgets", "get"),
        rule("x.io", "*", "get"),
    ]);
    assert_eq!(some.label("", "pods").as_deref(), Some("pods"));
    assert_eq!(some.label("apps", "deployments").as_deref(), Some("deployments.apps"));
    assert_eq!(some.label("made.up", "widgets").as_deref(), Some("widgets"));
    assert_eq!(some.label("made.up", "pods"), None);
    assert_eq!(some.label("x.io", "made"), None);
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let some = |words: &'static [&'static str], least: usize| {
        prop::collection::btree_set(prop::sample::select(words), least..3)
            .prop_map(|set| set.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    (
        some(&["", "apps", "*"], 1),
        some(&["pods", "secrets", "pods/log", "*"], 1),
        some(&["get", "list", "create", "*"], 1),
        some(&["x", "y"], 0),
        some(&["a", "b"], 0),
    )
        .prop_map(|(api_groups, resources, verbs, resource_names, namespaces)| Rule {
            api_groups,
            resources,
            verbs,
            resource_names,
            namespaces,
        })
}

proptest! {
    #[test]
    fn granting_what_is_missing_leaves_nothing_missing(
        asked in prop::collection::vec(any_rule(), 0..4),
        granted in prop::collection::vec(any_rule(), 0..4),
    ) {
        let gap = missing(&asked, &granted);
        let mut all = granted.clone();
        all.extend(gap.iter().cloned());
        prop_assert_eq!(missing(&asked, &all), []);
        // And nothing is named that was already there, or was not asked for.
        prop_assert_eq!(missing(&gap, &asked), []);
        for rule in &gap {
            prop_assert!(!missing(std::slice::from_ref(rule), &granted).is_empty());
        }
    }

    #[test]
    fn what_is_missing_is_what_decisions_refuse(
        asked in any_rule(),
        granted in prop::collection::vec(any_rule(), 0..4),
        verb in prop::sample::select(vec![Verb::Get, Verb::List, Verb::Create]),
        group in prop::sample::select(vec!["", "apps"]),
        plural in prop::sample::select(vec!["pods", "secrets"]),
        namespace in prop::sample::select(vec![None, Some("a"), Some("b")]),
        name in prop::sample::select(vec![None, Some("x"), Some("y")]),
    ) {
        let right = Right { verb, group, plural, subresource: None, namespace, name };
        let allows = |rules: &[Rule]| Permissions::new(rules.to_vec(), None).unwrap().allows(&right);
        let gap = missing(std::slice::from_ref(&asked), &granted);
        if allows(std::slice::from_ref(&asked)) && !allows(&gap) {
            prop_assert!(allows(&granted));
        }
    }
}
