//! `rbac`: what an administrator applies so that guests and host may do what the configuration says, and no more.

mod guest;
mod host;
mod manifest;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use wasm_operator_config::GuestSpec;
use wasm_operator_core::permission::{Rule, ServiceAccountUser};
use wasm_operator_core::request::Verb;
use wasm_operator_core::watch::Watch;
use wasm_operator_engine::World;

use super::component::{Component, ComponentError, Components, asked};
use super::output::print;
use super::{CacheArgs, NamespaceArgs, block_on};
use crate::revision::RevisionError;
use manifest::Manifests;

#[derive(Debug, Args)]
pub(super) struct Rbac {
    /// The configuration file
    #[arg(value_name = "CONFIG", default_value = "wasm_config.yaml")]
    config: PathBuf,
    /// The ServiceAccount that the host runs as [default: `wasm-operator` in the host's namespace]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = account)]
    host_service_account: Option<ServiceAccountUser>,
    /// How the host becomes its guests
    #[arg(long, value_enum, default_value_t)]
    impersonate: Impersonation,
    /// Let the host list and watch cluster-wide also where guests name namespaces: one watch for all of them
    #[arg(long)]
    cluster_wide_watches: bool,
    /// Let the host review tokens, for callers of guests that serve HTTP at the front door
    #[arg(long)]
    front_door: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// The right to impersonate, in either form that Kubernetes has. Granting both would undo the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Impersonation {
    /// The verb `impersonate` on each account: works with every version of Kubernetes
    #[default]
    Plain,
    /// Constrained impersonation (KEP-5284, Kubernetes 1.36): only for what each guest was granted
    Constrained,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
}

fn account(text: &str) -> Result<ServiceAccountUser, String> {
    let user = format!("system:serviceaccount:{}", text.replacen('/', ":", 1));
    ServiceAccountUser::parse(&user).ok_or_else(|| "write `namespace/name`".to_owned())
}

/// What the host asks about callers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reviews {
    /// Who they are: a front door.
    tokens: bool,
    /// What they may: a listener of a guest's own, or a front door.
    rights: bool,
}

/// A guest as far as roles are concerned.
#[derive(Debug, Clone)]
struct Granted {
    name: String,
    account: ServiceAccountUser,
    rules: Vec<Rule>,
    watches: Vec<Watched>,
}

/// What the host watches for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    group: String,
    plural: String,
    /// Empty for everywhere.
    namespaces: Vec<String>,
}

impl From<Watch> for Watched {
    fn from(watch: Watch) -> Self {
        Self { group: watch.of.group, plural: watch.of.plural, namespaces: watch.namespaces }
    }
}

/// What a program may watch, since nobody knows what it will. A rule for some names does not let it, or the host, watch.
fn watchable(rules: &[Rule]) -> Vec<Watched> {
    let allows = |rule: &Rule, verb: Verb| rule.verbs.iter().any(|word| word == "*" || word == verb.as_str());
    let may_watch = |rule: &&Rule| {
        rule.resource_names.is_empty() && [Verb::List, Verb::Watch].into_iter().all(|verb| allows(rule, verb))
    };
    let watched = |rule: &Rule| {
        let plurals: Vec<_> = rule.resources.iter().filter(|resource| !resource.contains('/')).cloned().collect();
        let namespaces = rule.namespaces.clone();
        rule.api_groups
            .iter()
            .flat_map(|group| plurals.iter().map(move |plural| (group.clone(), plural.clone())))
            .map(|(group, plural)| Watched { group, plural, namespaces: namespaces.clone() })
            .collect::<Vec<_>>()
    };
    rules.iter().filter(may_watch).flat_map(watched).collect()
}

impl Rbac {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let own = self.namespace.namespace();
        let namespace = own.clone().unwrap_or_else(|| "default".to_owned());
        let host = self
            .host_service_account
            .clone()
            .unwrap_or_else(|| ServiceAccountUser { namespace: namespace.clone(), name: "wasm-operator".to_owned() });
        let parsed =
            wasm_operator_config::read(&self.config, own.as_deref()).map_err(|error| anyhow::anyhow!(error.short()))?;
        if parsed.errors().next().is_some() {
            anyhow::bail!("`{0}` has mistakes; `wasm-operator validate {0}` shows them", self.config.display());
        }
        let components = Components::open(&self.cache)?;
        let directory = self.config.parent().unwrap_or(Path::new(""));
        let asked: Vec<_> = parsed.guests().map(|document| asked(&document.spec, directory)).collect();
        let described = block_on(async { Ok(components.describe_all(&asked).await) })?;
        let guests = parsed
            .guests()
            .zip(described)
            .map(|(document, component)| {
                granted(&document.spec, component, &namespace, own.as_deref())
                    .map_err(|error| error.context(format!("guest `{}`", document.spec.name)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let reviews = Reviews {
            tokens: self.front_door,
            rights: parsed.guests().any(|document| document.spec.serve.listener.is_some()),
        };
        let manifests = manifests(&guests, &host, self.impersonate, self.cluster_wide_watches, reviews);
        let text = match self.output {
            Format::Yaml => manifests.yaml()?,
            Format::Json => manifests.json()?,
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn granted(
    spec: &GuestSpec,
    component: Result<Component, ComponentError>,
    namespace: &str,
    own: Option<&str>,
) -> anyhow::Result<Granted> {
    let component = component?;
    let description = component.description?;
    if component.interface.world() == World::Operator && spec.permissions.follows_component() {
        return Err(RevisionError::AsRequested.into());
    }
    // Applying the output is an approval: what was approved before does not count.
    let rules = spec.permissions.resolve(&description.permissions, &component.digest, None, own)?;
    let watches = match component.interface.world() {
        World::Operator => watchable(&rules),
        World::Controller => description
            .controllers
            .into_iter()
            .flat_map(|controller| std::iter::once(controller.primary).chain(controller.watches))
            .map(Watched::from)
            .collect(),
    };
    Ok(Granted { name: spec.name.clone(), account: spec.identity(namespace), rules, watches })
}

/// The name of a role. It begins with the host's account, because several hosts may have guests of the same name, and the
/// roles of all of them meet in the namespaces of the objects and among the ClusterRoles. `:` occurs in no part.
fn role_name(host: &ServiceAccountUser, purpose: &str) -> String {
    format!("{}:{}:{purpose}", host.name, host.namespace)
}

fn manifests(
    guests: &[Granted],
    host: &ServiceAccountUser,
    impersonate: Impersonation,
    cluster_wide: bool,
    reviews: Reviews,
) -> Manifests {
    let mut manifests = Manifests::default();
    guests.iter().for_each(|granted| guest::add(&mut manifests, granted, host));
    host::add(&mut manifests, guests, host, impersonate, cluster_wide, reviews);
    manifests
}

#[cfg(test)]
mod tests;
