//! `inspect`: what a component is, does and wants.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::watch::{Mapping, Parts, Representation, Watch};
use wasm_operator_engine::{GuestSettings, World};

use super::component::{Component, Components};
use super::output::print;
use super::{CacheArgs, block_on};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The component, a `.wasm` file
    component: PathBuf,
    /// An environment variable of the guest, which its description may depend on; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The guest's arguments, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    args: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write `NAME=VALUE`".to_owned()),
    }
}

impl Inspect {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { component: path, env, args, output, cache } = self;
        let settings = GuestSettings { name: Arc::from("inspected"), env, args, limits: Limits::default() };
        let components = Components::open(&cache)?;
        let component = block_on(async { Ok(components.describe(&path, &settings).await?) })?;
        let bytes = std::fs::metadata(&path)?.len();
        match output {
            Format::Text => print(&text(&path.display().to_string(), bytes, &component))?,
            Format::Json => print(&format!("{:#}\n", as_json(bytes, &component)))?,
        }
        match component.description {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
        }
    }
}

fn as_json(bytes: u64, component: &Component) -> serde_json::Value {
    json!({
        "digest": format!("sha256:{}", component.digest),
        "bytes": bytes,
        "compiledBytes": component.compiled_bytes,
        "world": component.interface.world().as_str(),
        "imports": component.interface.imports,
        "exports": component.interface.exports,
        "servesRequests": component.interface.serves_requests(),
        "controllers": component.description.as_ref().ok().map(|description| &description.controllers),
        "permissions": component.description.as_ref().ok().map(|description| &description.permissions),
        "error": component.description.as_ref().err().map(ToString::to_string),
    })
}

fn text(path: &str, bytes: u64, component: &Component) -> String {
    let mut text = format!(
        "{path}\n  digest    sha256:{}\n  size      {} KiB, compiled {} KiB\n",
        component.digest,
        bytes.div_ceil(1024),
        component.compiled_bytes.div_ceil(1024)
    );
    list(&mut text, "world", std::iter::once(component.interface.world().as_str().to_owned()));
    list(&mut text, "imports", component.interface.imports.iter().cloned());
    list(&mut text, "exports", component.interface.exports.iter().cloned());
    if component.interface.serves_requests() {
        list(&mut text, "serves", std::iter::once("HTTP requests, behind the front door".to_owned()));
    }
    if component.interface.world() == World::Operator {
        text.push_str("\na program with watches of its own: list under `permissions` what it needs\n");
        return text;
    }
    if let Ok(description) = &component.description {
        for controller in &description.controllers {
            // A `String` takes every write.
            let _ = write!(
                text,
                "\ncontroller {}\n  reconciles {}\n",
                controller.name,
                watch(&controller.primary, "             ")
            );
            for other in &controller.watches {
                let _ = writeln!(text, "  watches    {}", watch(other, "             "));
            }
        }
        text.push_str("\nasks for\n");
        for rule in &description.permissions {
            let _ = writeln!(text, "  {rule}");
        }
        if description.permissions.is_empty() {
            text.push_str("  nothing\n");
        }
    }
    text
}

fn list(text: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let mut title = title;
    for item in items {
        let _ = writeln!(text, "  {title:<9} {item}");
        title = "";
    }
}

fn watch(watch: &Watch, margin: &str) -> String {
    let of = &watch.of;
    let group = if of.group.is_empty() { String::new() } else { format!(".{}", of.group) };
    let mut text = format!("{}{group}/{} ({})", of.plural, of.version, of.kind);
    let mut detail = |line: String| {
        let _ = write!(text, "\n{margin}{line}");
    };
    match watch.namespaces.as_slice() {
        [] => detail("in all namespaces".to_owned()),
        namespaces => detail(format!("in {}", namespaces.join(", "))),
    }
    for (name, selector) in [("labels", &watch.label_selector), ("fields", &watch.field_selector)] {
        if !selector.is_empty() {
            detail(format!("where {name} match `{selector}`"));
        }
    }
    for field in &watch.having {
        detail(format!("where `{}` is `{}`", field.path, field.value));
    }
    if watch.representation == Representation::Full {
        detail("whole objects".to_owned());
    }
    let Parts { generation, labels, annotations, finalizers } = watch.changed;
    let parts: Vec<&str> =
        [(generation, "generation"), (labels, "labels"), (annotations, "annotations"), (finalizers, "finalizers")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect();
    if !parts.is_empty() {
        detail(format!("on changes of {}", parts.join(", ")));
    }
    match &watch.mapping {
        Mapping::Object => {}
        Mapping::Owner(owner) => detail(format!("for its owner of kind {}", owner.kind)),
        Mapping::Label(label) => detail(format!("for what the label `{label}` names")),
        Mapping::Annotation(annotation) => detail(format!("for what the annotation `{annotation}` names")),
        Mapping::Field(path) => detail(format!("for what names it in `{path}`")),
        Mapping::Nothing => detail("for cached reads only".to_owned()),
    }
    text
}
