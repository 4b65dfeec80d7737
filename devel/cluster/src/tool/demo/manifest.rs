//! Server-side apply of YAML files, so that nobody needs kubectl.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::api::{DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

pub(super) const FIELD_MANAGER: &str = "wasm-operator-devel";

const CRD_PATIENCE: Duration = Duration::from_secs(30);
const CRD_POLL: Duration = Duration::from_millis(50);

pub(super) fn documents(manifest: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).context("cannot read a manifest")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

pub(super) async fn apply(client: &Client, document: Value) -> Result<()> {
    let object: DynamicObject =
        serde_json::from_value(document).context("a manifest holds something that is no Kubernetes object")?;
    let types = object.types.clone().unwrap_or_default();
    let name = object.name_any();
    let describe = || format!("cannot apply {} `{name}`", types.kind);
    let kind = GroupVersionKind::try_from(&types).with_context(describe)?;
    let (resource, capabilities) = oneshot::pinned_kind(client, &kind).await.with_context(describe)?;
    let api: Api<DynamicObject> = match (capabilities.scope, object.namespace()) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object))
        .await
        .with_context(describe)?;
    Ok(())
}

/// The API server serves a new kind a moment after it has accepted it.
pub(super) async fn until_served(api: &Api<DynamicObject>, manifest: &str) -> Result<()> {
    let served = async {
        while api.list(&ListParams::default().limit(1)).await.is_err() {
            tokio::time::sleep(CRD_POLL).await;
        }
    };
    let missing = || format!("the API server does not serve the kinds of `{manifest}`");
    tokio::time::timeout(CRD_PATIENCE, served).await.with_context(missing)
}
