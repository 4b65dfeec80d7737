//! What a guest's configuration says as a whole, beyond the form of each value. Serves files and custom resources alike.

use std::collections::BTreeSet;
use std::time::Duration;

use wasm_operator_core::network::Network;
use wasm_operator_core::permission::{InvalidRule, Rule, Ungrantable, check_grantable, warnings};
use wasm_operator_core::request::Verb;

use crate::diagnostic::Severity;
use crate::grants::Grants;
use crate::serve::Listener;
use crate::spec::{DEFAULT_IDLE_AFTER, GuestSpec, SleepMode};
use crate::suggest::closest;

/// Reconciles of one guest at once: as many as the whole host runs by default.
const MAX_CONCURRENCY: u32 = 256;
/// The range of weights: four orders of magnitude are more than anyone can tell apart.
const MAX_WEIGHT: u32 = 10_000;
/// Requests of one guest at once: as many as the whole host serves.
const MAX_REQUESTS: u32 = 64;
/// Requests that wait: each holds a body.
const MAX_REQUEST_QUEUE: u32 = 1_024;
/// An hour: longer work belongs into a reconcile.
const MAX_REQUEST_MILLISECONDS: u64 = 3_600_000;
/// The host holds the body in its own memory.
const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// A resync reconciles every object; more often is a loop, not a safety net.
const MIN_RESYNC: Duration = Duration::from_secs(1);

/// A step on the way to a part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// A field by its name in the file.
    Field(&'static str),
    /// An item of a list.
    Index(usize),
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// An error keeps the guest from starting.
    pub severity: Severity,
    /// The part that is meant.
    pub path: Vec<Segment>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    fn error(path: impl Into<Vec<Segment>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.into(), message: message.into(), help: None }
    }

    fn warning(path: impl Into<Vec<Segment>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

use Segment::{Field, Index};

impl GuestSpec {
    /// Everything that is wrong or questionable. `host_namespace` is closed to guests; None when the host does not run in
    /// the cluster.
    #[must_use]
    pub fn check(&self, host_namespace: Option<&str>) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_env(&mut problems);
        if let Grants::Rules(rules) = &self.permissions {
            for (index, rule) in rules.iter().enumerate() {
                check_rule(rule, &[Field("permissions"), Index(index)], host_namespace, &mut problems);
            }
        }
        self.check_numbers(&mut problems);
        self.check_serve(&mut problems);
        let meaningless = [
            ("idleAfter", SleepMode::Fixed, self.sleep.idle_after != DEFAULT_IDLE_AFTER),
            ("minResident", SleepMode::Predicted, !self.sleep.min_resident.is_zero()),
        ];
        for (field, mode, is_set) in meaningless {
            if is_set && self.sleep.mode != mode {
                problems.push(Problem::warning(
                    [Field("sleep"), Field(field)],
                    format!("`{field}` means nothing with mode `{:?}`; it belongs to `{mode:?}`", self.sleep.mode),
                ));
            }
        }
        if let Some(namespace) = self.service_account.as_ref().and_then(|account| account.namespace.as_deref())
            && namespace.starts_with("kube-")
        {
            problems.push(Problem::warning(
                [Field("serviceAccount")],
                format!("accounts in `{namespace}` belong to Kubernetes itself and often have wide rights"),
            ));
        }
        problems
    }

    fn check_env(&self, problems: &mut Vec<Problem>) {
        let mut seen = BTreeSet::new();
        for (index, variable) in self.env.iter().enumerate() {
            if !seen.insert(&variable.name) {
                problems.push(Problem::error(
                    [Field("env"), Index(index), Field("name")],
                    format!("the environment variable `{}` is set twice", variable.name),
                ));
            }
            if variable.value.contains('\0') {
                problems.push(Problem::error(
                    [Field("env"), Index(index), Field("value")],
                    "an environment variable cannot hold a zero character",
                ));
            }
        }
    }

    fn check_numbers(&self, problems: &mut Vec<Problem>) {
        let mut range = |name, value: u32, max: u32| {
            if value < 1 || value > max {
                problems.push(Problem::error([Field(name)], format!("`{name}` is from 1 to {max}, not {value}")));
            }
        };
        range("concurrency", self.concurrency, MAX_CONCURRENCY);
        range("weight", self.weight, MAX_WEIGHT);
        let limits = &self.limits;
        for (name, value) in [
            ("memoryBytes", limits.memory_bytes),
            ("cpuMilliseconds", limits.cpu_milliseconds),
            ("reconcileMilliseconds", limits.reconcile_milliseconds),
            ("requestMilliseconds", limits.request_milliseconds),
        ] {
            if value == 0 {
                problems.push(Problem::error(
                    [Field("limits"), Field(name)],
                    format!("with `{name}` 0 the guest cannot run"),
                ));
            }
        }
        if self.resync.is_some_and(|resync| resync < MIN_RESYNC) {
            problems.push(
                Problem::error(
                    [Field("resync")],
                    "a resync more often than every second reconciles all objects without end",
                )
                .with_help("leave `resync` out, or write something like `10h`; the guest sees every change without it"),
            );
        }
    }
}

impl GuestSpec {
    fn check_serve(&self, problems: &mut Vec<Problem>) {
        let serve = &self.serve;
        for (name, value, min, max) in [
            ("concurrency", serve.concurrency.into(), 1, MAX_REQUESTS.into()),
            ("queue", serve.queue.into(), 0, MAX_REQUEST_QUEUE.into()),
            ("milliseconds", serve.milliseconds, 1, MAX_REQUEST_MILLISECONDS),
            ("requestBytes", serve.request_bytes, 0, MAX_REQUEST_BYTES),
        ] {
            if value < min || value > max {
                problems.push(Problem::error(
                    [Field("serve"), Field(name)],
                    format!("`{name}` is from {min} to {max}, not {value}"),
                ));
            }
        }
        if let Some(listener) = &serve.listener {
            check_listener(listener, problems);
        }
    }
}

fn check_listener(listener: &Listener, problems: &mut Vec<Problem>) {
    let at = |field: Option<&'static str>| {
        [Field("serve"), Field("listener")].into_iter().chain(field.map(Field)).collect::<Vec<_>>()
    };
    if listener.sources.is_empty() {
        problems.push(
            Problem::error(at(Some("sources")), "a listener says where its callers may come from")
                .with_help("write the clients' range, such as `sources: [10.0.0.0/8]`"),
        );
    }
    let has_tls = listener.certificate.is_some();
    if has_tls != listener.key.is_some() {
        let field = if has_tls { "certificate" } else { "key" };
        problems.push(Problem::error(at(Some(field)), "`certificate` and `key` belong together"));
    } else if listener.client_authorities.is_some() && !has_tls {
        problems.push(Problem::error(
            at(Some("clientAuthorities")),
            "client certificates come over HTTPS only: `certificate` and `key` are missing",
        ));
    }
    let mut risks =
        vec![format!("this listener asks for no token: who comes from its `sources` is taken for `{}`", listener.user)];
    if !listener.authenticates() {
        risks.push("no caller proves anything, neither with a password nor with a certificate".to_owned());
    }
    if !has_tls && !listener.address.ip().is_loopback() {
        let passwords = if listener.passwords.is_some() { ", passwords included" } else { "" };
        risks.push(format!("what is sent can be read on the way{passwords}"));
    }
    if listener.sources.iter().any(Network::is_everything) {
        risks.push("`sources` is everybody".to_owned());
    }
    problems.push(Problem::warning(at(None), risks.join("; ")));
}

fn check_rule(rule: &Rule, path: &[Segment], host_namespace: Option<&str>, problems: &mut Vec<Problem>) {
    let at = |field: &'static str, index: Option<usize>| {
        let mut path = path.to_vec();
        path.push(Field(field));
        path.extend(index.map(Index));
        path
    };
    let place = |values: &[String], value: &str| values.iter().position(|v| v == value);
    match rule.validate() {
        Err(InvalidRule::Empty(field)) => {
            problems.push(Problem::error(at(field, None), format!("`{field}` of a rule names at least one")));
            return;
        }
        Err(error @ InvalidRule::Malformed { field, .. }) => {
            let index = malformed(rule, field);
            problems.push(Problem::error(at(field, index), error.to_string()));
            return;
        }
        Ok(()) => {}
    }
    if let Err(error) = check_grantable(rule, host_namespace) {
        let message = error.to_string();
        problems.push(match &error {
            Ungrantable::UnknownVerb(verb) => {
                let problem = Problem::error(at("verbs", place(&rule.verbs, verb)), message);
                match closest(verb, Verb::ALL.iter().map(|verb| verb.as_str())) {
                    Some(meant) => problem.with_help(format!("did you mean `{meant}`?")),
                    None => problem,
                }
            }
            Ungrantable::Escalation(verb) => Problem::error(at("verbs", place(&rule.verbs, verb)), message),
            Ungrantable::Token => {
                Problem::error(at("resources", place(&rule.resources, "serviceaccounts/token")), message)
            }
            Ungrantable::Subresource(resource) => {
                Problem::error(at("resources", place(&rule.resources, resource)), message)
            }
            Ungrantable::HostNamespace(namespace) => {
                Problem::error(at("namespaces", place(&rule.namespaces, namespace)), message)
            }
        });
        return;
    }
    let warnings = warnings(rule);
    if !warnings.is_empty() {
        // Each begins with the rule, which is said once.
        let lead = format!("`{rule}`: ");
        let rest: Vec<&str> = warnings.iter().map(|warning| warning.strip_prefix(&lead).unwrap_or(warning)).collect();
        problems.push(Problem::warning(path, format!("{lead}{}", rest.join("; "))));
    }
}

/// The first word of the field that makes the rule invalid: each alone in an otherwise valid rule.
fn malformed(rule: &Rule, field: &str) -> Option<usize> {
    let values = match field {
        "apiGroups" => &rule.api_groups,
        "resources" => &rule.resources,
        "verbs" => &rule.verbs,
        "resourceNames" => &rule.resource_names,
        "namespaces" => &rule.namespaces,
        _ => return None,
    };
    values.iter().position(|value| {
        let one = || vec![value.clone()];
        let any = || vec!["*".to_owned()];
        let probe = Rule {
            api_groups: if field == "apiGroups" { one() } else { any() },
            resources: if field == "resources" { one() } else { any() },
            verbs: if field == "verbs" { one() } else { any() },
            resource_names: if field == "resourceNames" { one() } else { Vec::new() },
            namespaces: if field == "namespaces" { one() } else { Vec::new() },
        };
        probe.validate().is_err()
    })
}
