//! Runs OpenWhisk actions as Kubernetes Jobs. `README.md` has the resources, the façade, and what differs from the
//! original.

pub mod api;
pub mod children;
mod facade;
pub mod fqn;
pub mod ids;
pub mod labels;
pub mod openwhisk;
pub mod params;
pub mod plan;
mod reconcile;
pub mod settings;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use wasm_operator_sdk::{Config, Controller, IntoGuest, Mapping, Rule, client};

use api::{OffloadTarget, OffloadedAction};
use reconcile::Context;
use settings::Settings;

/// What is watched, and what the guest asks to be allowed.
fn setup() -> Result<impl IntoGuest, String> {
    let settings = Settings::read(|name| std::env::var(name).ok()).map_err(|error| error.to_string())?;
    let watch = || Config::default().in_namespaces(settings.namespaces.clone());
    let of_jobs = format!("{}={}", labels::JOB_TYPE, labels::JOB_TYPE_VALUE);
    let context = Arc::new(Context { client: client(), settings: settings.clone() });
    let here = |rule: Rule| rule.in_namespaces(settings.namespaces.clone());

    // Changes of the status are the guest's own and wake nobody.
    let flows = Controller::<OffloadedAction>::new(watch().when_generation_changed())
        .owns::<Job>(watch().labels(&of_jobs).full())
        .watches::<Pod>(watch().labels(&of_jobs).full(), Mapping::by_annotation(labels::OWNER))
        .owns::<Service>(watch().labels(labels::FLOW).full())
        .watches::<OffloadTarget>(watch().full().when_generation_changed(), Mapping::by_field(".spec.targetRef.name"))
        .asks_for(here(Rule::on::<OffloadedAction>().apply().update().delete()))
        .asks_for(here(Rule::on::<OffloadedAction>().subresource("status").patch()))
        .asks_for(here(Rule::on::<Secret>().verbs(["get"]).apply().delete()))
        .asks_for(here(Rule::on::<ConfigMap>().verbs(["get"]).apply().delete()))
        .asks_for(here(Rule::on::<Job>().apply().delete()))
        .asks_for(here(Rule::on::<Service>().apply().delete()))
        .asks_for(here(Rule::on::<NetworkPolicy>().apply().delete()))
        .asks_for(here(Rule::on::<Pod>().subresource("log").verbs(["get"])))
        .asks_for(here(Rule::events()))
        .asks_for(Rule::on::<Node>().verbs(["get"]))
        .asks_for(Rule::on::<ServiceCIDR>().verbs(["list"]))
        .run(reconcile::reconcile, reconcile::error_policy, Arc::clone(&context));
    let targets = Controller::<OffloadTarget>::new(watch().when_generation_changed())
        .asks_for(here(Rule::on::<OffloadTarget>().apply()))
        .asks_for(here(Rule::on::<OffloadTarget>().subresource("status").patch()))
        .run(reconcile::reconcile_target, reconcile::target_error_policy, context);
    Ok([flows, targets])
}

wasm_operator_sdk::main!(setup, serve = facade::handle);

#[cfg(test)]
mod tests;
