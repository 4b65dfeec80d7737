//! `validate`: everything that can be said of a configuration before it runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use wasm_operator_config::{Diagnostic, Grants, GuestDocument, GuestSpec, Segment, Severity};
use wasm_operator_core::description::Description;
use wasm_operator_core::permission::{Permissions, Right, Rule, missing, warnings};
use wasm_operator_core::request::Verb;
use wasm_operator_core::watch::Watch;
use wasm_operator_engine::World;

use super::component::{Component, Components, asked};
use super::output::{complain, print};
use super::{CacheArgs, NamespaceArgs, block_on};
use crate::authorities;
use crate::revision::RevisionError;

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// The configuration file
    #[arg(value_name = "CONFIG", default_value = "wasm_config.yaml")]
    config: PathBuf,
    /// Check the file only: components are neither read nor compiled
    #[arg(long)]
    no_components: bool,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

const PERMISSIONS: Segment = Segment::Field("permissions");

impl Validate {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let namespace = self.namespace.namespace();
        let parsed = match wasm_operator_config::read(&self.config, namespace.as_deref()) {
            Ok(parsed) => parsed,
            Err(diagnostic) => {
                complain(&format!("{diagnostic}\n"));
                return Ok(ExitCode::FAILURE);
            }
        };
        let mut found: Vec<Diagnostic> = parsed.diagnostics().cloned().collect();
        let directory = self.config.parent().unwrap_or(Path::new(""));
        for document in parsed.guests() {
            if let Err(error) = authorities::read(&document.spec, directory) {
                let at = &[Segment::Field("certificateAuthorities")];
                found.push(document.diagnostic(Severity::Error, at, error.to_string()));
            }
        }
        if !self.no_components {
            let components = Components::open(&self.cache)?;
            let guests: Vec<_> = parsed.guests().map(|document| asked(&document.spec, directory)).collect();
            let described = block_on(async { Ok(components.describe_all(&guests).await) })?;
            for (document, component) in parsed.guests().zip(described) {
                match component {
                    Ok(component) => found.extend(check(document, &component, namespace.as_deref())),
                    Err(error) => {
                        let at = &[Segment::Field("wasm")];
                        found.push(document.diagnostic(Severity::Error, at, error.to_string()));
                    }
                }
            }
        }
        found.sort_by_key(|diagnostic| diagnostic.position);
        found.iter().for_each(|diagnostic| complain(&format!("{diagnostic}\n\n")));
        let count = |severity| found.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let guests = parsed.documents.len();
        print(&format!(
            "{}: {}, {}, {}\n",
            self.config.display(),
            number(guests, "guest"),
            number(errors, "error"),
            number(warnings, "warning")
        ))?;
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn number(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What a component's description says about its guest's configuration.
fn check(document: &GuestDocument, component: &Component, namespace: Option<&str>) -> Vec<Diagnostic> {
    let description = match &component.description {
        Ok(description) => description,
        Err(error) => return vec![document.diagnostic(Severity::Error, &[Segment::Field("wasm")], error.to_string())],
    };
    let at = |severity, message: String| document.diagnostic(severity, &[PERMISSIONS], message);
    let grants = &document.spec.permissions;
    if component.interface.world() == World::Operator {
        return check_program(document);
    }
    // What was approved for a running host is not known here.
    let granted = match grants.resolve(&description.permissions, &component.digest, None, namespace) {
        Ok(granted) => granted,
        Err(error) => return vec![at(Severity::Error, error.to_string())],
    };
    let mut found = Vec::new();
    if document.spec.serve.listener.is_some() && !component.interface.serves_requests() {
        let path = [Segment::Field("serve"), Segment::Field("listener")];
        let message = "the component serves no requests: it does not export `wasi:http/incoming-handler`";
        found.push(document.diagnostic(Severity::Error, &path, message));
    }
    if let Grants::Rules(_) = grants {
        let lacking = missing(&description.permissions, &granted);
        if !lacking.is_empty() {
            let message =
                "the component asks for more than it is granted; where it needs that, its requests fail with 403";
            let lines: Vec<String> = lacking.iter().map(json).collect();
            let help = format!("to grant the rest, add under `permissions`: {}", lines.join(", "));
            found.push(at(Severity::Warning, message.to_owned()).with_help(help));
        }
    } else {
        found.extend(granted.iter().flat_map(warnings).map(|warning| at(Severity::Warning, warning)));
    }
    found.extend(unreadable(description, granted, namespace).into_iter().map(|message| at(Severity::Warning, message)));
    found
}

/// A program is not asked what it needs, and has no reconciles or requests that the host starts.
fn check_program(document: &GuestDocument) -> Vec<Diagnostic> {
    let spec = &document.spec;
    let mut found = Vec::new();
    if spec.permissions.follows_component() {
        let message = RevisionError::AsRequested.to_string();
        found.push(document.diagnostic(Severity::Error, &[PERMISSIONS], message));
    }
    let defaults = GuestSpec::new(spec.name.clone(), spec.wasm.clone());
    for (field, is_default) in [
        ("concurrency", spec.concurrency == defaults.concurrency),
        ("resync", spec.resync == defaults.resync),
        ("serve", spec.serve == defaults.serve),
        ("allowCrossNamespaceMapping", spec.allow_cross_namespace_mapping == defaults.allow_cross_namespace_mapping),
    ] {
        if !is_default {
            let message = format!("`{field}` has no effect: the component is a program, which runs a loop of its own");
            found.push(document.diagnostic(Severity::Warning, &[Segment::Field(field)], message));
        }
    }
    found
}

fn json(rule: &Rule) -> String {
    serde_json::to_string(rule).unwrap_or_default()
}

/// Watches whose objects the guest may not read: it would never hear of a change.
fn unreadable(description: &Description, granted: Vec<Rule>, namespace: Option<&str>) -> Vec<String> {
    let Ok(permissions) = Permissions::new(granted, namespace.map(str::to_owned)) else { return Vec::new() };
    let mut found = Vec::new();
    for controller in &description.controllers {
        for watch in std::iter::once(&controller.primary).chain(&controller.watches) {
            if !may_watch(&permissions, watch) {
                found.push(format!(
                    "controller `{}` watches `{}`, and is not granted both `list` and `watch` of them{}; it will not hear of changes",
                    controller.name,
                    watch.of.plural,
                    if watch.namespaces.is_empty() { " in every namespace" } else { "" },
                ));
            }
        }
    }
    found
}

fn may_watch(permissions: &Permissions, watch: &Watch) -> bool {
    let may = |namespace: Option<&str>| {
        [Verb::List, Verb::Watch].into_iter().all(|verb| {
            permissions.allows(&Right {
                verb,
                group: &watch.of.group,
                plural: &watch.of.plural,
                subresource: None,
                namespace,
                name: None,
            })
        })
    };
    if watch.namespaces.is_empty() { may(None) } else { watch.namespaces.iter().all(|namespace| may(Some(namespace))) }
}
