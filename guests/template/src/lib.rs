//! Keeps a copy of each ConfigMap that is labelled `hello.example.org/copy=true`, and mends it when somebody changes it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use wasm_operator_sdk::{Action, ApiExt, Config, Controller, IntoGuest, Rule, client, names, owners};

struct Context {
    client: Client,
}

/// Called for each ConfigMap with the label: when it appears, when it changes, and when its copy changes.
async fn reconcile(source: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let namespace = source.namespace().unwrap_or_default();
    let mut copy = ConfigMap {
        metadata: ObjectMeta { name: Some(names::child(&source.name_any(), "copy")), ..ObjectMeta::default() },
        data: source.data.clone(),
        ..ConfigMap::default()
    };
    // The copy goes when the source goes, and its changes lead back to the source.
    owners::set_controller(&mut copy, &*source);

    let copy = Api::<ConfigMap>::namespaced(context.client.clone(), &namespace).apply(&copy).await?;
    tracing::info!("{namespace}/{} is copied to {}", source.name_any(), copy.name_any());
    Ok(Action::await_change())
}

/// What becomes of an error: here the host tries again with a growing delay.
fn error_policy(_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Context>) -> Action {
    Action::retry()
}

/// What is watched, and what the guest asks to be allowed. Runs when an instance starts, without network.
fn setup() -> impl IntoGuest {
    Controller::<ConfigMap>::new(Config::default().labels("hello.example.org/copy=true"))
        .owns::<ConfigMap>(Config::default())
        .asks_for(Rule::on::<ConfigMap>().apply())
        .run(reconcile, error_policy, Arc::new(Context { client: client() }))
}

wasm_operator_sdk::main!(setup);
