//! The host's own roles: to become its guests, to fill the shared caches, and to report.

use std::collections::{BTreeMap, BTreeSet};

use wasm_operator_core::permission::{Rule, ServiceAccountUser};
use wasm_operator_core::request::Verb;

use super::manifest::{Manifests, RoleRule};
use super::{Granted, Impersonation, Reviews, role_name};

const IMPERSONATE: &str = "impersonate";
const WATCH: &str = "watch";
const EVENTS: &str = "events";
const CALLERS: &str = "callers";

pub(super) fn add(
    manifests: &mut Manifests,
    guests: &[Granted],
    host: &ServiceAccountUser,
    impersonate: Impersonation,
    cluster_wide: bool,
    reviews: Reviews,
) {
    accounts(manifests, guests, host, impersonate);
    if impersonate == Impersonation::Constrained {
        for guest in guests {
            guest.rules.iter().for_each(|rule| act(manifests, host, rule));
        }
        // The host asks the API server what a guest may read before it serves it from a shared cache.
        for (group, resource) in
            [("authentication.k8s.io", "selfsubjectreviews"), ("authorization.k8s.io", "selfsubjectaccessreviews")]
        {
            let rule = RoleRule::new(group, [resource], ["impersonate-on:serviceaccount:create"]);
            manifests.rule("", &role_name(host, IMPERSONATE), None, host, rule);
        }
    }
    watches(manifests, guests, host, cluster_wide);
    callers(manifests, host, reviews);
    let events = RoleRule::new("events.k8s.io", ["events"], ["create"]);
    manifests.rule("", &role_name(host, EVENTS), Some(&host.namespace), host, events);
}

/// What the host has to ask about callers of guests that serve HTTP.
fn callers(manifests: &mut Manifests, host: &ServiceAccountUser, reviews: Reviews) {
    let kinds = [
        (reviews.tokens, "authentication.k8s.io", "tokenreviews"),
        (reviews.tokens || reviews.rights, "authorization.k8s.io", "subjectaccessreviews"),
    ];
    for (_, group, resource) in kinds.into_iter().filter(|(is_needed, ..)| *is_needed) {
        manifests.rule("", &role_name(host, CALLERS), None, host, RoleRule::new(group, [resource], ["create"]));
    }
}

/// The accounts that the host may become.
fn accounts(manifests: &mut Manifests, guests: &[Granted], host: &ServiceAccountUser, impersonate: Impersonation) {
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for guest in guests {
        names.entry(&guest.account.namespace).or_default().insert(guest.account.name.clone());
    }
    let (group, verb) = match impersonate {
        Impersonation::Plain => ("", "impersonate"),
        Impersonation::Constrained => ("authentication.k8s.io", "impersonate:serviceaccount"),
    };
    for (namespace, names) in names {
        let rule = RoleRule { names, ..RoleRule::new(group, ["serviceaccounts"], [verb]) };
        manifests.rule("", &role_name(host, IMPERSONATE), Some(namespace), host, rule);
    }
}

/// What the host may do as a guest. The server matches these verbs literally, so `*` is written out.
fn act(manifests: &mut Manifests, host: &ServiceAccountUser, rule: &Rule) {
    let verbs: Vec<String> = if rule.verbs.iter().any(|verb| verb == "*") {
        Verb::ALL.iter().map(|verb| verb.as_str().to_owned()).collect()
    } else {
        rule.verbs.clone()
    };
    let role_rule = || RoleRule {
        groups: rule.api_groups.iter().cloned().collect(),
        resources: rule.resources.iter().cloned().collect(),
        names: rule.resource_names.iter().cloned().collect(),
        verbs: verbs.iter().map(|verb| format!("impersonate-on:serviceaccount:{verb}")).collect(),
    };
    if rule.namespaces.is_empty() {
        manifests.rule("", &role_name(host, IMPERSONATE), None, host, role_rule());
    }
    for namespace in &rule.namespaces {
        manifests.rule("", &role_name(host, IMPERSONATE), Some(namespace), host, role_rule());
    }
}

/// What the shared caches hold, by scope and API group.
fn watches(manifests: &mut Manifests, guests: &[Granted], host: &ServiceAccountUser, cluster_wide: bool) {
    let mut kinds: BTreeMap<(Option<&str>, &str), BTreeSet<&str>> = BTreeMap::new();
    for watch in guests.iter().flat_map(|guest| &guest.watches) {
        if watch.namespaces.is_empty() || cluster_wide {
            kinds.entry((None, &watch.group)).or_default().insert(&watch.plural);
        } else {
            for namespace in &watch.namespaces {
                kinds.entry((Some(namespace), &watch.group)).or_default().insert(&watch.plural);
            }
        }
    }
    for ((namespace, group), plurals) in &kinds {
        // What may be watched everywhere need not be said again.
        let wide = kinds.get(&(None, *group)).filter(|_| namespace.is_some());
        let plurals: Vec<&str> =
            plurals.iter().copied().filter(|plural| wide.is_none_or(|wide| !wide.contains(plural))).collect();
        if !plurals.is_empty() {
            manifests.rule(
                "",
                &role_name(host, WATCH),
                *namespace,
                host,
                RoleRule::new(group, plurals, ["list", "watch"]),
            );
        }
    }
}
