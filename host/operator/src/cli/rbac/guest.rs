//! One guest's account and roles: exactly what it was granted.

use wasm_operator_core::permission::{Rule, ServiceAccountUser};

use super::manifest::{Manifests, RoleRule};
use super::{Granted, role_name};

pub(super) fn add(manifests: &mut Manifests, guest: &Granted, host: &ServiceAccountUser) {
    manifests.account(&guest.account, &guest.name);
    let name = role_name(host, &format!("guest:{}", guest.name));
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
