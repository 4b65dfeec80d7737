//! One guest's account and roles: exactly what it was granted.

use wasm_operator_core::permission::Rule;

use super::Granted;
use super::manifest::{Manifests, RoleRule};

/// The name of a guest's roles, next to those of others in a namespace.
fn role_name(guest: &str) -> String {
    format!("wasm-operator-guest-{guest}")
}

pub(super) fn add(manifests: &mut Manifests, guest: &Granted) {
    manifests.account(&guest.account, &guest.name);
    let name = role_name(&guest.name);
    for rule in &guest.rules {
        if rule.namespaces.is_empty() {
            manifests.rule(&guest.name, &name, None, &guest.account, role_rule(rule));
        }
        for namespace in &rule.namespaces {
            manifests.rule(&guest.name, &name, Some(namespace), &guest.account, role_rule(rule));
        }
    }
}

fn role_rule(rule: &Rule) -> RoleRule {
    RoleRule {
        groups: rule.api_groups.iter().cloned().collect(),
        resources: rule.resources.iter().cloned().collect(),
        names: rule.resource_names.iter().cloned().collect(),
        verbs: rule.verbs.clone(),
    }
}
