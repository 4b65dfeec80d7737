//! Permission rules in RBAC's words, and the decision whether a request is allowed.

mod grantable;
mod missing;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::request::path::{is_label, is_path_name, is_subdomain};
use crate::request::{ContentType, ResourceRequest, Verb};

pub use grantable::{GRANTABLE_SUBRESOURCES, Ungrantable, check_grantable, warnings};
pub use missing::missing;

/// One rule. A request is allowed when one rule matches all of its parts; nothing is allowed by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// API groups; `""` is the core group, `*` every group.
    pub api_groups: Vec<String>,
    /// Plurals or `plural/subresource`; `*` is every resource without subresources.
    pub resources: Vec<String>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; `*` is all of them.
    pub verbs: Vec<String>,
    /// Object names; empty for every name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Namespaces; empty for every namespace and for cluster-scoped resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}

/// The word that stands for everything in groups, resources and verbs.
const ANY: &str = "*";

/// What is not a rule. The author of the configuration or of the guest can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// A list that must name something is empty.
    #[error("`{0}` is empty; name at least one")]
    Empty(&'static str),
    /// A word that cannot be what it stands for.
    #[error("`{value}` in `{field}` is not {expected}")]
    Malformed {
        /// The field of the rule.
        field: &'static str,
        /// The word, cut to a printable length.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Rule {
    /// Checks every word of the rule. Says nothing of whether the rule may be granted: see [`check_grantable`].
    pub fn validate(&self) -> Result<(), InvalidRule> {
        let all = |field, values: &[String], expected, ok: &dyn Fn(&str) -> bool| match values.iter().find(|v| !ok(v)) {
            Some(value) => Err(InvalidRule::Malformed { field, value: printable(value), expected }),
            None => Ok(()),
        };
        for (field, values) in [("apiGroups", &self.api_groups), ("resources", &self.resources), ("verbs", &self.verbs)]
        {
            if values.is_empty() {
                return Err(InvalidRule::Empty(field));
            }
        }
        all("apiGroups", &self.api_groups, "an API group such as `apps`, `\"\"` for the core group, or `*`", &|v| {
            v.is_empty() || v == ANY || is_subdomain(v)
        })?;
        all("resources", &self.resources, "a lower-case plural such as `configmaps`, `pods/status`, or `*`", &|v| {
            v == ANY || v.split('/').count() <= 2 && v.split('/').all(is_label)
        })?;
        all("verbs", &self.verbs, "one word in lower case", &|v| {
            v == ANY
                || !v.is_empty() && v.len() <= 63 && v.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b':')
        })?;
        all("resourceNames", &self.resource_names, "the name of an object", &is_path_name)?;
        all("namespaces", &self.namespaces, "the name of a namespace", &is_label)
    }

    fn matches(&self, right: &Right<'_>) -> bool {
        let listed = |values: &[String], value: &str| values.iter().any(|v| v == value);
        let any = |values: &[String]| values.iter().any(|v| v == ANY);
        let resource = match right.subresource {
            None => any(&self.resources) || listed(&self.resources, right.plural),
            // `*` leaves subresources out: each of them is named where it is meant.
            Some(subresource) => self.resources.iter().any(|v| v.split_once('/') == Some((right.plural, subresource))),
        };
        resource
            && (any(&self.api_groups) || listed(&self.api_groups, right.group))
            && (any(&self.verbs) || listed(&self.verbs, right.verb.as_str()))
            && (self.namespaces.is_empty() || right.namespace.is_some_and(|n| listed(&self.namespaces, n)))
            && (self.resource_names.is_empty() || right.name.is_some_and(|n| listed(&self.resource_names, n)))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(","), self.resources.join(","))?;
        if self.api_groups.iter().any(|g| !g.is_empty()) {
            let groups: Vec<&str> = self.api_groups.iter().map(|g| if g.is_empty() { "core" } else { g }).collect();
            write!(f, " of {}", groups.join(","))?;
        }
        if !self.resource_names.is_empty() {
            write!(f, " named {}", self.resource_names.join(","))?;
        }
        if !self.namespaces.is_empty() {
            write!(f, " in {}", self.namespaces.join(","))?;
        }
        Ok(())
    }
}

fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The smallest thing that can be allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Right<'a> {
    /// What is done.
    pub verb: Verb,
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Lower-case plural.
    pub plural: &'a str,
    /// Such as `status`.
    pub subresource: Option<&'a str>,
    /// None: cluster-wide, or a cluster-scoped resource.
    pub namespace: Option<&'a str>,
    /// None: every name, or one that is not known yet.
    pub name: Option<&'a str>,
}

impl<'a> Right<'a> {
    /// The right to `verb` what `request` names.
    pub fn of(request: &'a ResourceRequest, verb: Verb) -> Self {
        Self {
            verb,
            group: &request.group,
            plural: &request.plural,
            subresource: request.subresource.as_deref(),
            namespace: request.authorised_namespace(),
            name: request.authorised_name(),
        }
    }

    /// The rule that would allow exactly this.
    pub fn to_rule(&self) -> Rule {
        let list = |value: Option<&str>| value.map(str::to_owned).into_iter().collect();
        Rule {
            api_groups: vec![self.group.to_owned()],
            resources: vec![self.resource()],
            verbs: vec![self.verb.as_str().to_owned()],
            // An example to copy: rules that list single objects are the exception.
            resource_names: Vec::new(),
            namespaces: list(self.namespace),
        }
    }

    /// `plural` or `plural/subresource`.
    pub fn resource(&self) -> String {
        match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.plural),
            None => self.plural.to_owned(),
        }
    }
}

/// Why a request is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied<'a> {
    /// No rule grants this right. The administrator can.
    NotGranted(Right<'a>),
    /// It lies in the host's own namespace, where guests do nothing whatever the rules say.
    HostNamespace(Right<'a>),
    /// No rule can grant this: see [`check_grantable`].
    Never(Right<'a>),
}

impl<'a> Denied<'a> {
    /// The right that is missing.
    pub fn right(&self) -> Right<'a> {
        match self {
            Self::NotGranted(right) | Self::HostNamespace(right) | Self::Never(right) => *right,
        }
    }

    /// The message for the guest: who may not do what where, and which rule would allow it.
    pub fn message(&self, guest: &str) -> String {
        let right = self.right();
        let group = if right.group.is_empty() { "the core group" } else { right.group };
        let place = match right.namespace {
            Some(namespace) => format!("in namespace `{namespace}`"),
            None => "at the cluster scope".to_owned(),
        };
        let what = format!("guest `{guest}` may not `{}` `{}` ({group}) {place}", right.verb, right.resource());
        match self {
            Self::NotGranted(right) => {
                let rule = serde_json::to_string(&right.to_rule()).unwrap_or_default();
                format!("{what}: no rule grants it. This rule under the guest's `permissions` would: {rule}")
            }
            Self::HostNamespace(_) => format!("{what}: it is the host's own namespace, which no rule opens to guests"),
            Self::Never(_) => format!("{what}: this subresource is never granted to guests"),
        }
    }
}

/// The rules of one guest, ready to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    rules: Vec<Rule>,
    host_namespace: Option<String>,
}

impl Permissions {
    /// Takes granted rules. `host_namespace` is closed to the guest whatever the rules say; None when the host does
    /// not run in the cluster. Rules that may not be granted are an error of the caller, who checks them for the
    /// administrator; the decisions below refuse what they would open all the same.
    pub fn new(rules: Vec<Rule>, host_namespace: Option<String>) -> Result<Self, InvalidRule> {
        rules.iter().try_for_each(Rule::validate)?;
        Ok(Self { rules, host_namespace })
    }

    /// The granted rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Is this one right granted?
    pub fn allows(&self, right: &Right<'_>) -> bool {
        self.decide(right).is_ok()
    }

    /// Is everything granted that the request needs, with a body of this format? The error names the first right that is missing.
    pub fn check<'a>(&self, request: &'a ResourceRequest, content: ContentType) -> Result<(), Denied<'a>> {
        request.needed_verbs(content).try_for_each(|verb| self.decide(&Right::of(request, verb)))
    }

    fn decide<'a>(&self, right: &Right<'a>) -> Result<(), Denied<'a>> {
        if right.subresource.is_some_and(|s| !grantable::is_grantable_subresource(right.plural, s)) {
            return Err(Denied::Never(*right));
        }
        if self.host_namespace.is_some() && right.namespace == self.host_namespace.as_deref() {
            return Err(Denied::HostNamespace(*right));
        }
        if self.rules.iter().any(|rule| rule.matches(right)) { Ok(()) } else { Err(Denied::NotGranted(*right)) }
    }

    /// The resource as metrics and Events may name it: `plural` or `plural.group`, made of words that the rules hold.
    /// None for what no rule names: a guest could make up any number of such names.
    pub fn label(&self, group: &str, plural: &str) -> Option<String> {
        let named = |rule: &&Rule| rule.resources.iter().any(|r| r.split('/').next() == Some(plural));
        let lists = |rule: &Rule, group: &str| rule.api_groups.iter().any(|g| g == group);
        let mut rules = self.rules.iter().filter(named);
        if rules.clone().any(|rule| lists(rule, group)) {
            return Some(if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") });
        }
        rules.any(|rule| lists(rule, ANY)).then(|| plural.to_owned())
    }
}

/// `system:serviceaccount:<namespace>:<name>`: the only form of identity that a guest may have. An empty or odd user
/// would make the server answer as the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccountUser {
    /// The account's namespace.
    pub namespace: String,
    /// The account's name.
    pub name: String,
}

impl ServiceAccountUser {
    /// Reads a user name.
    pub fn parse(user: &str) -> Option<Self> {
        let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (is_label(namespace) && is_subdomain(name))
            .then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ServiceAccountUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
