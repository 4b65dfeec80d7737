//! One controller from one source, as a native program and as a guest: both leave the same objects.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use harness::{
    Context as _, Guest, Result, Rule, Space, bail, difference, ensure, eventually, normalise, target, test,
    until_object,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

const CRD: &str = include_str!("../../../../../guests/operators/config-bundle/crd.yaml");
const GROUP: &str = "examples.wasm-operator.dev";

fn bundles(space: &Space, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "ConfigBundle"));
    Api::namespaced_with(space.client(), namespace, &resource)
}

fn guest(namespace: &str) -> Guest {
    let rule = |group: &str, resource: &str, verbs: &[&str]| Rule::new(group, &[resource], verbs).namespace(namespace);
    Guest::new("bundle", "config-bundle")
        .env("NAMESPACE", namespace)
        .idle_after("50ms")
        .grant(rule(GROUP, "configbundles", &["get", "list", "watch", "update", "patch"]))
        .grant(rule(GROUP, "configbundles/status", &["patch"]))
        .grant(rule("", "configmaps", &["get", "list", "watch", "create", "patch", "delete"]))
}

async fn write(bundles: &Api<DynamicObject>, name: &str, config_maps: Value) -> Result<DynamicObject> {
    let bundle = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ConfigBundle", "metadata": { "name": name },
        "spec": { "configMaps": config_maps },
    });
    Ok(bundles.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&bundle)).await?)
}

async fn apply(bundles: &Api<DynamicObject>, config_maps: Value) -> Result<()> {
    let generation = write(bundles, "app", config_maps).await?.metadata.generation;
    let done = |object: Option<&DynamicObject>| {
        let observed = object.and_then(|object| object.data.pointer("/status/observedGeneration")?.as_i64());
        observed.is_some() && observed == generation
    };
    until_object(bundles, "app", "the controller has done its work", done).await?;
    Ok(())
}

/// The objects without what differs between two namespaces, and without who wrote which field.
async fn state(space: &Space, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let mut objects = Vec::new();
    for bundle in bundles(space, namespace).list(&ListParams::default()).await? {
        objects.push(serde_json::to_value(bundle)?);
    }
    for config_map in space.config_maps(namespace).list(&ListParams::default()).await? {
        let mut value = serde_json::to_value(config_map)?;
        value["kind"] = "ConfigMap".into();
        objects.push(value);
    }
    for object in &mut objects {
        object["metadata"].as_object_mut().context("no metadata")?.remove("managedFields");
    }
    Ok(normalise(objects, namespace))
}

/// What somebody does with a bundle, and the states that this leads to.
async fn protocol(space: &Space, namespace: &str) -> Result<Vec<BTreeMap<String, Value>>> {
    let (bundles, config_maps) = (bundles(space, namespace), space.config_maps(namespace));
    let mut states = Vec::new();
    apply(&bundles, json!({ "one": { "a": "1" }, "two": { "b": "2" } })).await?;
    states.push(state(space, namespace).await?);
    apply(&bundles, json!({ "two": { "b": "3" }, "three": {} })).await?;
    states.push(state(space, namespace).await?);

    let lost = config_maps.get("app-two").await?;
    config_maps.delete("app-two", &DeleteParams::default()).await?;
    let back = |object: Option<&ConfigMap>| object.is_some_and(|object| object.uid() != lost.uid());
    until_object(&config_maps, "app-two", "the child is there again", back).await?;
    states.push(state(space, namespace).await?);

    bundles.delete("app", &DeleteParams::default()).await?;
    until_object(&bundles, "app", "the finalizer has done its work", |object| object.is_none()).await?;
    let mut left = state(space, namespace).await?;
    // When the children go is the garbage collector's affair.
    left.retain(|_, object| object["metadata"]["ownerReferences"].is_null());
    states.push(left);
    Ok(states)
}

#[test]
fn as_a_guest_and_as_a_native_program_it_leaves_the_same_objects() -> Result<()> {
    test(async |space| {
        space.cluster().install(CRD).await?;
        let (guests, natives) = (space.namespace("guest").await?, space.namespace("native").await?);

        let program = target()?.join("x86_64-unknown-linux-musl/release/config-bundle");
        ensure!(
            program.is_file(),
            "`{}` does not exist; `guests/operators/build --native` makes it",
            program.display()
        );
        let mut native = Command::new(program);
        native.env("KUBECONFIG", space.cluster().kubeconfig()).env("NAMESPACE", &natives);
        native.stdout(Stdio::null()).stderr(Stdio::null());
        let mut native = wasm_operator_devel::spawn(native)?;
        let expected = protocol(space, &natives).await;
        native.kill()?;
        native.wait()?;
        let expected = expected?;

        let host = space.host().guest(guest(&guests)).start().await?;
        let found = protocol(space, &guests).await?;
        for (step, (expected, found)) in expected.iter().zip(&found).enumerate() {
            let differs = difference(expected, found);
            ensure!(differs.is_empty(), "after step {step}:\n{differs}");
        }
        eventually("the index is empty", async || {
            let index = space.config_maps(&guests).get("config-bundles").await?;
            if index.data.is_some_and(|data| !data.is_empty()) {
                bail!("it lists something");
            }
            Ok(())
        })
        .await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

#[test]
fn a_program_that_begins_with_many_objects_at_once_is_refused_nothing() -> Result<()> {
    const OBJECTS: usize = 150;
    test(async |space| {
        space.cluster().install(CRD).await?;
        let namespace = space.namespace("guest").await?;
        let bundles = bundles(space, &namespace);
        for number in 0..OBJECTS {
            write(&bundles, &format!("app-{number}"), json!({ "one": { "number": number.to_string() } })).await?;
        }
        let host = space.host().guest(guest(&namespace)).start().await?;
        eventually("every bundle has its object", async || {
            let children = space.config_maps(&namespace).list_metadata(&ListParams::default()).await?;
            let children = children.iter().filter(|child| child.name_any().starts_with("app-")).count();
            ensure!(children == OBJECTS, "{children} of {OBJECTS}");
            Ok(())
        })
        .await?;
        let again = host.log().lines(|line| line.is_of("bundle") && line.text().contains("tried again"));
        ensure!(again.is_empty(), "{} requests failed, the first: {}", again.len(), again[0].text());
        Ok(())
    })
}
