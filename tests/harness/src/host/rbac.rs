//! The rights that `wasm-operator rbac` prints for a configuration, applied as an administrator would.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::Value;

use super::command::{cache_arguments, command, output};

/// A thousand guests have some thousand objects, of which the server takes several at once.
const APPLIED_AT_ONCE: usize = 8;

/// The hosts of a run share a cache of compiled components. Of two processes that compile the same one into it at once, the later
/// replaces what the earlier is about to load, and the earlier refuses that.
static COMPILING: Mutex<()> = Mutex::new(());

/// Objects that give the host and its guests their rights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rights(Vec<DynamicObject>);

impl Rights {
    /// What the binary prints.
    pub(crate) fn of(config: &Path, cache: &Path, host_namespace: &str, arguments: &[String]) -> Result<Self> {
        let mut command = command(&["rbac", "--host-namespace", host_namespace])?;
        command.arg(config).args(cache_arguments(cache)).args(arguments);
        let printed = {
            let _alone = COMPILING.lock();
            output(command)?
        };
        Self::parse(&printed.success().context("`wasm-operator rbac`")?)
    }

    fn parse(text: &str) -> Result<Self> {
        // A thousand guests have more documents than the library takes from strangers.
        let options = serde_saphyr::options! { budget: None };
        let documents: Vec<Value> =
            serde_saphyr::from_multiple_with_options(text, options).context("the output of `wasm-operator rbac`")?;
        let objects = documents
            .into_iter()
            .filter(|document| !document.is_null())
            .map(|document| serde_json::from_value(document).context("an object of `wasm-operator rbac`"));
        Ok(Self(objects.collect::<Result<_>>()?))
    }

    /// Without what binds a guest's account in a namespace.
    pub(crate) fn denying(mut self, account: &str, namespace: &str) -> Self {
        let names = |object: &DynamicObject| {
            object.data.pointer("/subjects").and_then(Value::as_array).cloned().unwrap_or_default()
        };
        self.0.retain(|object| {
            let of_account =
                names(object).iter().any(|subject| subject.get("name").and_then(Value::as_str) == Some(account));
            object.namespace().as_deref() != Some(namespace) || !of_account
        });
        self
    }

    pub(crate) async fn apply(&self, client: &Client) -> Result<()> {
        let each = futures::stream::iter(&self.0).map(|object| apply(client, object));
        each.buffer_unordered(APPLIED_AT_ONCE).try_collect().await
    }

    /// Takes the bindings away: roles without them give nothing.
    pub(crate) async fn revoke(&self, client: &Client) -> Result<()> {
        for object in
            self.0.iter().filter(|object| object.types.as_ref().is_some_and(|types| types.kind.ends_with("Binding")))
        {
            api(client, object)?.delete(&object.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

async fn apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let name = object.name_any();
    let applied = api(client, object)?.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(object)).await;
    applied.map(drop).with_context(|| format!("cannot apply {:?} `{name}`", object.types))
}

fn api(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let kind = GroupVersionKind::try_from(object.types.as_ref().context("an object without a kind")?)?;
    let resource = ApiResource::from_gvk(&kind);
    Ok(match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}
