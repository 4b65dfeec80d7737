//! The objects that are printed, in an order that does not depend on anything but themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wasm_operator_core::permission::ServiceAccountUser;

const RBAC: &str = "rbac.authorization.k8s.io";

/// A rule of a role whose words are sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoleRule {
    pub(super) groups: BTreeSet<String>,
    pub(super) resources: BTreeSet<String>,
    pub(super) names: BTreeSet<String>,
    pub(super) verbs: Vec<String>,
}

impl RoleRule {
    pub(super) fn new<'a>(
        group: &str,
        resources: impl IntoIterator<Item = &'a str>,
        verbs: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            groups: [group.to_owned()].into(),
            resources: resources.into_iter().map(str::to_owned).collect(),
            names: BTreeSet::new(),
            verbs: verbs.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// What a role is for; with a scope it is a role of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Empty: the host.
    guest: String,
    name: String,
    /// None: a ClusterRole.
    namespace: Option<String>,
}

/// Accounts and roles, each with its binding.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    accounts: BTreeMap<(String, String), String>,
    roles: BTreeMap<Key, (ServiceAccountUser, BTreeSet<RoleRule>)>,
}

impl Manifests {
    pub(super) fn account(&mut self, account: &ServiceAccountUser, guest: &str) {
        self.accounts.entry((account.namespace.clone(), account.name.clone())).or_insert_with(|| guest.to_owned());
    }

    /// Adds a rule to the role of this name, for all namespaces if `namespace` is None.
    pub(super) fn rule(
        &mut self,
        guest: &str,
        name: &str,
        namespace: Option<&str>,
        account: &ServiceAccountUser,
        rule: RoleRule,
    ) {
        let key = Key { guest: guest.to_owned(), name: name.to_owned(), namespace: namespace.map(str::to_owned) };
        self.roles.entry(key).or_insert_with(|| (account.clone(), BTreeSet::new())).1.insert(rule);
    }

    fn values(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let mut values = Vec::new();
        for ((namespace, name), guest) in &self.accounts {
            values.push(serde_json::to_value(ServiceAccount {
                metadata: metadata(name, Some(namespace), guest),
                // A guest has no Pod, so nobody needs the account's token.
                automount_service_account_token: Some(false),
                ..ServiceAccount::default()
            })?);
        }
        for (key, (account, rules)) in &self.roles {
            let metadata = || metadata(&key.name, key.namespace.as_deref(), &key.guest);
            let rules = Some(rules.iter().map(policy_rule).collect());
            let role_ref = |kind: &str| RoleRef {
                api_group: Some(RBAC.to_owned()),
                kind: kind.to_owned(),
                name: key.name.clone(),
            };
            let subjects = Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: account.name.clone(),
                namespace: Some(account.namespace.clone()),
                ..Subject::default()
            }]);
            if key.namespace.is_some() {
                values.push(serde_json::to_value(Role { metadata: metadata(), rules })?);
                let binding = RoleBinding { metadata: metadata(), role_ref: role_ref("Role"), subjects };
                values.push(serde_json::to_value(binding)?);
            } else {
                values.push(serde_json::to_value(ClusterRole {
                    metadata: metadata(),
                    rules,
                    ..ClusterRole::default()
                })?);
                let binding = ClusterRoleBinding { metadata: metadata(), role_ref: role_ref("ClusterRole"), subjects };
                values.push(serde_json::to_value(binding)?);
            }
        }
        Ok(values)
    }

    pub(super) fn yaml(&self) -> anyhow::Result<String> {
        let mut text = String::from("# Printed by `wasm-operator rbac`. To be reviewed, then applied.\n");
        for value in self.values()? {
            let document = serde_saphyr::to_string(&value).context("cannot write YAML")?;
            text.push_str("---\n");
            text.push_str(document.trim_end());
            text.push('\n');
        }
        Ok(text)
    }

    pub(super) fn json(&self) -> anyhow::Result<String> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": self.values()? });
        Ok(format!("{list:#}\n"))
    }
}

fn metadata(name: &str, namespace: Option<&str>, guest: &str) -> ObjectMeta {
    let (component, instance) = if guest.is_empty() { ("host", "wasm-operator") } else { ("guest", guest) };
    let labels = [
        ("app.kubernetes.io/name", "wasm-operator"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/instance", instance),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

fn policy_rule(rule: &RoleRule) -> PolicyRule {
    let list = |set: &BTreeSet<String>| (!set.is_empty()).then(|| set.iter().cloned().collect());
    PolicyRule {
        api_groups: list(&rule.groups),
        resources: list(&rule.resources),
        resource_names: list(&rule.names),
        verbs: rule.verbs.clone(),
        ..PolicyRule::default()
    }
}
