//! A controller as there are many: for each `ConfigBundle` it keeps the ConfigMaps that it owns, a status, and an entry in
//! an index that it takes out again before the bundle goes.

mod bundle;

use std::sync::Arc;
use std::time::Duration;

use bundle::{BUNDLE, ConfigBundle};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use wasm_operator_client::{client, watcher_config};

/// The field manager of what it writes.
const MANAGER: &str = "config-bundle";
const FINALIZER: &str = "examples.wasm-operator.dev/index";
/// The ConfigMap of each namespace that lists its bundles.
const INDEX: &str = "config-bundles";

struct Context {
    client: Client,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    /// Tried again: most likely the namespace is going or a right is missing.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Finalizer(Box<finalizer::Error<kube::Error>>),
    /// Cannot be: the resource is namespaced.
    #[error("a bundle without a namespace")]
    NoNamespace,
}

async fn reconcile(bundle: Arc<ConfigBundle>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = bundle.namespace().ok_or(Error::NoNamespace)?;
    let bundles: Api<ConfigBundle> = Api::namespaced(context.client.clone(), &namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    finalizer(&bundles, FINALIZER, bundle, async |event| match event {
        Event::Apply(bundle) => apply(&bundles, &config_maps, &bundle).await,
        Event::Cleanup(bundle) => index(&config_maps, &bundle.name_any(), None).await,
    })
    .await
    .map_err(|error| Error::Finalizer(Box::new(error)))
}

async fn apply(
    bundles: &Api<ConfigBundle>,
    config_maps: &Api<ConfigMap>,
    bundle: &ConfigBundle,
) -> kube::Result<Action> {
    let name = bundle.name_any();
    index(config_maps, &name, Some(bundle.spec.config_maps.len())).await?;
    for child in bundle.children() {
        let params = PatchParams::apply(MANAGER).force();
        config_maps.patch(&child.name_any(), &params, &Patch::Apply(&child)).await?;
    }
    let there = config_maps.list(&ListParams::default().labels(&format!("{BUNDLE}={name}"))).await?;
    for surplus in bundle.surplus(&there.items) {
        config_maps.delete(surplus, &DeleteParams::default()).await?;
    }
    if let Some(status) = bundle.next_status() {
        let status = Patch::Merge(json!({ "status": status }));
        bundles.patch_status(&name, &PatchParams::default(), &status).await?;
    }
    Ok(Action::await_change())
}

/// Lists the bundle with its number of ConfigMaps, or takes it off the list.
async fn index(config_maps: &Api<ConfigMap>, bundle: &str, count: Option<usize>) -> kube::Result<Action> {
    let data = json!({ "data": { bundle: count.map(|count| count.to_string()) } });
    let patched = config_maps.patch(INDEX, &PatchParams::default(), &Patch::Merge(&data)).await;
    match (patched, count) {
        (Err(kube::Error::Api(status)), None) if status.code == 404 => {}
        (Err(kube::Error::Api(status)), Some(count)) if status.code == 404 => {
            let list = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": INDEX },
                "data": { bundle: count.to_string() },
            });
            config_maps.patch(INDEX, &PatchParams::apply(MANAGER), &Patch::Apply(&list)).await?;
        }
        (patched, _) => drop(patched?),
    }
    Ok(Action::await_change())
}

fn error_policy(_: Arc<ConfigBundle>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(%error, "tried again");
    Action::requeue(Duration::from_secs(1))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let client = client().await?;
    let (bundles, children) = match std::env::var("NAMESPACE") {
        Ok(namespace) => (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace)),
        Err(_) => (Api::all(client.clone()), Api::all(client.clone())),
    };
    Controller::<ConfigBundle>::new(bundles, watcher_config())
        .owns::<ConfigMap>(children, watcher_config().labels(BUNDLE))
        .shutdown_on_signal()
        .run(reconcile, error_policy, Arc::new(Context { client }))
        .for_each(|_| std::future::ready(()))
        .await;
    Ok(())
}
