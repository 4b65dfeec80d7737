//! What no administrator can grant, and what deserves a warning.

use super::{ANY, Rule};
use crate::request::Verb;

/// The subresources that a rule may name; `*` stands for every resource. All others open ways around the other rules
/// (`exec`, `attach`, `portforward`, `proxy`, `token`, `ephemeralcontainers`, `binding`, `approval`, ...).
pub const GRANTABLE_SUBRESOURCES: [(&str, &str); 4] =
    [(ANY, "status"), (ANY, "scale"), ("pods", "eviction"), ("pods", "log")];

pub(super) fn is_grantable_subresource(plural: &str, subresource: &str) -> bool {
    GRANTABLE_SUBRESOURCES.iter().any(|(p, s)| (*p == ANY || *p == plural) && *s == subresource)
}

/// Why a rule cannot be granted. The administrator has to change the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ungrantable {
    /// The verb lets a guest become someone else or raise its own rights.
    #[error("the verb `{0}` is never granted: with it a guest could take rights that it was not given")]
    Escalation(String),
    /// Not a verb of requests that the gateway passes on.
    #[error(
        "the verb `{0}` cannot be granted; the verbs are get, list, watch, create, update, patch, delete, deletecollection and `*`"
    )]
    UnknownVerb(String),
    /// A token of an account is that account.
    #[error("`serviceaccounts/token` is never granted: a token is the account itself, outside of this host's control")]
    Token,
    /// The subresource is not on the list.
    #[error("the subresource `{0}` is never granted; only `status`, `scale`, `pods/eviction` and `pods/log` can be")]
    Subresource(String),
    /// The host's own namespace.
    #[error("namespace `{0}` is the host's own and is never opened to guests")]
    HostNamespace(String),
}

/// May an administrator grant this rule at all?
pub fn check_grantable(rule: &Rule, host_namespace: Option<&str>) -> Result<(), Ungrantable> {
    for verb in rule.verbs.iter().filter(|verb| *verb != ANY) {
        if matches!(verb.as_str(), "impersonate" | "bind" | "escalate") || verb.starts_with("impersonate") {
            return Err(Ungrantable::Escalation(verb.clone()));
        }
        if Verb::parse(verb).is_none() {
            return Err(Ungrantable::UnknownVerb(verb.clone()));
        }
    }
    for resource in &rule.resources {
        if resource == "serviceaccounts/token" {
            return Err(Ungrantable::Token);
        }
        if let Some((plural, subresource)) = resource.split_once('/')
            && !is_grantable_subresource(plural, subresource)
        {
            return Err(Ungrantable::Subresource(resource.clone()));
        }
    }
    match rule.namespaces.iter().find(|n| Some(n.as_str()) == host_namespace) {
        Some(namespace) => Err(Ungrantable::HostNamespace(namespace.clone())),
        None => Ok(()),
    }
}

/// What an administrator should know before granting the rule: the ways round other rules that it opens.
pub fn warnings(rule: &Rule) -> Vec<String> {
    let mut found = Vec::new();
    let group = |group: &str| rule.api_groups.iter().any(|g| g == group || g == ANY);
    let verb = |verbs: &[Verb]| rule.verbs.iter().any(|v| v == ANY || verbs.iter().any(|w| w.as_str() == v));
    let resource = |plural: &str| rule.resources.iter().any(|r| r == plural || r == ANY);
    let write = [Verb::Create, Verb::Update, Verb::Patch];
    let read = [Verb::Get, Verb::List, Verb::Watch];

    if group("") && resource("pods") && verb(&[Verb::Create])
        || group("apps")
            && ["deployments", "daemonsets", "statefulsets", "replicasets"].iter().any(|r| resource(r))
            && verb(&write)
        || group("batch") && ["jobs", "cronjobs"].iter().any(|r| resource(r)) && verb(&write)
    {
        found.push(format!(
            "`{rule}`: who creates pods can run as any service account of the namespace and mount its Secrets"
        ));
    }
    if group("") && resource("secrets") {
        if verb(&[Verb::Create]) {
            found.push(format!(
                "`{rule}`: who creates Secrets can have a token of any service account of the namespace written into one"
            ));
        }
        if verb(&read) {
            found.push(format!("`{rule}`: Secrets hold credentials, tokens of service accounts among them"));
        }
    }
    if group("rbac.authorization.k8s.io") && verb(&write) {
        found.push(format!(
            "`{rule}`: roles and bindings written by the guest change the rights of others, as far as its own reach"
        ));
    }
    if group("admissionregistration.k8s.io") && verb(&write) {
        found.push(format!("`{rule}`: admission webhooks and policies see and change what everybody writes"));
    }
    if group("certificates.k8s.io") && verb(&write) {
        found.push(format!("`{rule}`: certificate requests can become credentials of others"));
    }
    if group("") && resource("nodes") && verb(&write) {
        found.push(format!("`{rule}`: labels and taints of nodes decide where everybody's pods run"));
    }
    if rule.namespaces.is_empty()
        && rule.resource_names.is_empty()
        && verb(&read)
        && [ANY, "secrets", "configmaps", "pods"].iter().any(|r| resource(r))
    {
        found.push(format!(
            "`{rule}`: a cluster-wide list or watch also shows the objects of the host's own namespace; name the `namespaces` where that matters"
        ));
    }
    if rule.api_groups.iter().chain(&rule.resources).any(|v| v == ANY) {
        found.push(format!("`{rule}`: `*` also covers what is installed later"));
    }
    found
}
