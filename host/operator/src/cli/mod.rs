//! The command line.

mod compile;
mod component;
mod front_door;
mod inspect;
mod output;
mod rbac;
mod run;
mod validate;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{complain, print};
use wasm_operator_engine::{CACHE_BYTES, EngineOptions};

/// Runs many Kubernetes controllers as WebAssembly components in one process.
#[derive(Debug, Parser)]
#[command(name = "wasm-operator", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the guests of a configuration
    Run(Box<run::Run>),
    /// Check a configuration: every mistake with its place, and what components ask for and are not granted
    Validate(validate::Validate),
    /// Show a component's controllers, watches, imports, and the permissions that it asks for
    Inspect(inspect::Inspect),
    /// Print the ServiceAccounts, roles and bindings for what a configuration grants, and for the host itself
    Rbac(rbac::Rbac),
    /// Compile a component ahead of time; `run` starts this as a child process
    Compile(compile::Compile),
    /// Ask a running host why a guest is in memory or asleep: what was learnt, which rule is in force, what it plans
    Why(why::Why),
    /// Print the JSON schema of a guest in the configuration
    Schema {
        /// In the form that a CustomResourceDefinition wants
        #[arg(long)]
        structural: bool,
    },
}

/// Where compiled components are kept.
#[derive(Debug, clap::Args)]
struct CacheArgs {
    /// Directory of compiled components, made if missing, mode 0700
    /// [default: $XDG_CACHE_HOME/wasm-operator/components or ~/.cache/wasm-operator/components]
    #[arg(long, value_name = "DIRECTORY")]
    cache_dir: Option<PathBuf>,
    /// Bytes on disk that compiled components may take; those that guests use stay, even if they are more
    #[arg(long, value_name = "BYTES", default_value_t = CACHE_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    cache_budget: u64,
}

impl CacheArgs {
    fn directory(&self) -> anyhow::Result<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        self.cache_dir
            .clone()
            .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("wasm-operator/components")))
            .or_else(|| Some(absolute("HOME")?.join(".cache/wasm-operator/components")))
            .ok_or_else(|| {
                anyhow::anyhow!("neither `HOME` nor `XDG_CACHE_HOME` is set; name a directory with `--cache-dir`")
            })
    }

    /// Components are compiled by this program as a child process.
    fn engine_options(&self) -> anyhow::Result<EngineOptions> {
        let compiler = vec!["/proc/self/exe".into(), "compile".into()];
        Ok(EngineOptions { cache_bytes: self.cache_budget, ..EngineOptions::new(self.directory()?, compiler) })
    }
}

/// The namespace that the host runs in.
#[derive(Debug, clap::Args)]
struct NamespaceArgs {
    /// The host's own namespace, which is closed to guests, and that of ServiceAccounts named without one
    /// [default: in a cluster the namespace of the Pod; elsewhere none is closed, and accounts are in `default`]
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    host_namespace: Option<String>,
}

/// Where a Pod finds its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

impl NamespaceArgs {
    fn namespace(&self) -> Option<String> {
        let of_pod =
            || Some(std::fs::read_to_string(NAMESPACE_FILE).ok()?.trim().to_owned()).filter(|name| !name.is_empty());
        self.host_namespace.clone().or_else(of_pod)
    }
}

fn namespace(text: &str) -> Result<String, String> {
    wasm_operator_core::permission::ServiceAccountUser::parse(&format!("system:serviceaccount:{text}:x"))
        .map(|user| user.namespace)
        .ok_or_else(|| "not the name of a namespace: lower-case letters, digits and inner `-`".to_owned())
}

impl Cli {
    /// Does what was asked for. An error is shown on stderr and makes the exit code 1.
    pub(crate) fn execute(self) -> ExitCode {
        let result = match self.command {
            Command::Run(run) => run.execute(),
            Command::Validate(validate) => validate.execute(),
            Command::Inspect(inspect) => inspect.execute(),
            Command::Rbac(rbac) => rbac.execute(),
            Command::Compile(compile) => compile.execute(),
            Command::Why(why) => why.execute(),
            Command::Schema { structural } => {
                let schema = if structural {
                    format!("{:#}\n", wasm_operator_config::structural_schema())
                } else {
                    wasm_operator_config::json_schema()
                };
                print(&schema).map(|()| ExitCode::SUCCESS)
            }
        };
        result.unwrap_or_else(|error| {
            complain(&message(&error));
            ExitCode::FAILURE
        })
    }
}

/// An error and its causes, each cause once: many errors have the words of their cause in their own.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    // A diagnostic brings its own severity.
    let severity = if text.starts_with("error: ") { "" } else { "error: " };
    format!("{severity}{text}\n")
}

/// For commands that do one thing and end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests;
