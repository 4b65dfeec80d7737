//! Kinds that come and go.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use serde_json::json;
use wasm_operator_cluster::informer::{ParkReason, Scope, SubscriptionState};
use wasm_operator_core::watch::{Representation, Resource};

use crate::stage::{Heard, Stage};

fn resource(group: &str) -> Resource {
    Resource { group: group.into(), version: "v1".into(), kind: "Thing".into(), plural: "things".into() }
}

async fn define(stage: &Stage, group: &str) -> Result<()> {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": format!("things.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced", "names": { "kind": "Thing", "plural": "things" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    });
    let api: Api<CustomResourceDefinition> = Api::all(stage.admin.clone());
    api.create(&PostParams::default(), &serde_json::from_value(crd)?).await?;
    Ok(())
}

async fn undefine(stage: &Stage, group: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(stage.admin.clone());
    let name = format!("things.{group}");
    api.delete(&name, &DeleteParams::default()).await?;
    harness::until_object(&api, &name, "the definition is gone", |crd| crd.is_none()).await?;
    Ok(())
}

async fn create(stage: &Stage, group: &str, name: &str) -> Result<()> {
    let kind = ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: format!("{group}/v1"),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(stage.admin.clone(), &stage.namespace, &kind);
    let object: DynamicObject = serde_json::from_value(
        json!({ "apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": { "name": name }, "spec": { "odd": [1.50, null] } }),
    )?;
    // A kind is served a moment after it is established.
    harness::eventually("the object is created", async || {
        api.create(&PostParams::default(), &object).await.map(drop).context("create")
    })
    .await
}

fn waits_for_the_kind(heard: &Heard) -> bool {
    matches!(heard.states.last(), Some(SubscriptionState::Parked { reason: ParkReason::NotServed, .. }))
}

#[tokio::test]
async fn a_kind_may_come_go_and_come_again() -> Result<()> {
    let stage = Stage::new("crd-cycle").await?;
    let group = "cycle.example.com";
    let host = stage.host();
    let scope = Scope { resource: resource(group), representation: Representation::Full, ..stage.scope() };
    let (_subscription, heard) = host.subscribe(&scope)?;
    heard.until("it waits for the kind", waits_for_the_kind).await?;

    define(&stage, group).await?;
    heard.synced().await?;
    create(&stage, group, "a").await?;
    let first = heard.word("+a").await?;
    let object = first.changes.first().and_then(|change| change.new.clone()).context("the object")?;
    ensure!(
        String::from_utf8_lossy(&object.json).contains(r#""spec":{"odd":[1.5,null]}"#),
        "{}",
        String::from_utf8_lossy(&object.json)
    );

    undefine(&stage, group).await?;
    heard.word("-a").await?;
    heard.until("it waits for the kind", waits_for_the_kind).await?;

    define(&stage, group).await?;
    heard.until("synced again", Heard::is_synced).await?;
    create(&stage, group, "b").await?;
    let all = heard.until("the new object", |heard| heard.words.len() >= 3).await?;
    ensure!(all.words == ["+a", "-a", "+b"], "{:?}", all.words);
    undefine(&stage, group).await
}

#[tokio::test]
async fn a_kind_that_is_replaced_in_a_moment_loses_its_objects() -> Result<()> {
    let stage = Stage::new("crd-replaced").await?;
    let group = "replaced.example.com";
    define(&stage, group).await?;
    let host = stage.host();
    let (_subscription, heard) = host.subscribe(&Scope { resource: resource(group), ..stage.scope() })?;
    heard.synced().await?;
    create(&stage, group, "a").await?;
    create(&stage, group, "b").await?;
    heard.word("+b").await?;
    undefine(&stage, group).await?;
    define(&stage, group).await?;
    create(&stage, group, "a").await?;
    let all =
        heard.until("the new object", |heard| heard.words.iter().filter(|word| *word == "+a").count() == 2).await?;
    ensure!(all.sorted() == ["+a", "+a", "+b", "-a", "-b"], "{:?}", all.words);
    undefine(&stage, group).await
}
