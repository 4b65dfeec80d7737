//! What a subscription hears while nothing goes wrong.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wasm_operator_cluster::informer::Scope;
use wasm_operator_core::object::ObjectRef;

use crate::stage::Stage;

#[tokio::test]
async fn creations_changes_and_deletions_are_heard_in_order() -> Result<()> {
    let stage = Stage::new("events-order").await?;
    stage.put("before", "1").await?;
    let host = stage.host();
    let (subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    stage.put("a", "1").await?;
    stage.put_labelled("a", "2", json!({ "last": "seen" })).await?;
    stage.delete("a").await?;
    let all = heard.word("-a").await?;
    ensure!(all.words == ["*before", "+a", "~a", "-a"], "{:?}", all.words);
    let deleted = all.changes.last().and_then(|change| change.old.clone()).context("the last state")?;
    ensure!(deleted.metadata.labels.get("last").is_some_and(|value| &**value == "seen"));
    let reference = |name: &str| ObjectRef { namespace: Some(stage.namespace.as_str().into()), name: name.into() };
    ensure!(subscription.get(&reference("before")).is_some());
    ensure!(subscription.get(&reference("a")).is_none());
    ensure!(subscription.list().len() == 1);
    Ok(())
}

#[tokio::test]
async fn an_object_that_is_created_again_is_deleted_first() -> Result<()> {
    let stage = Stage::new("events-again").await?;
    let host = stage.host();
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    for value in ["1", "2"] {
        stage.put("a", value).await?;
        stage.delete("a").await?;
    }
    let all = heard.until("two deletions", |heard| heard.words.len() == 4).await?;
    ensure!(all.words == ["+a", "-a", "+a", "-a"], "{:?}", all.words);
    let uids: std::collections::BTreeSet<_> =
        all.changes.iter().filter_map(|change| Some(change.latest()?.metadata.uid.clone())).collect();
    ensure!(uids.len() == 2);
    Ok(())
}

#[tokio::test]
async fn leaving_a_selector_is_a_deletion_and_entering_it_an_addition() -> Result<()> {
    let stage = Stage::new("events-selector").await?;
    let host = stage.host();
    // The wide stream is there first, so the narrow subscription has to be filtered from it.
    let (_wide, everything) = host.subscribe(&stage.scope())?;
    everything.synced().await?;
    let narrow = Scope { label_selector: "app in (web, api)".into(), ..stage.scope() };
    let (_narrow, heard) = host.subscribe(&narrow)?;
    heard.synced().await?;
    stage.put("a", "1").await?;
    stage.put_labelled("a", "2", json!({ "app": "web" })).await?;
    stage.put_labelled("a", "3", json!({ "app": "api" })).await?;
    stage.put_labelled("a", "4", json!({ "app": "db" })).await?;
    stage.put_labelled("b", "1", json!({ "app": "web" })).await?;
    let all = heard.word("+b").await?;
    ensure!(all.words == ["+a", "~a", "-a", "+b"], "{:?}", all.words);
    let left = all.changes.get(2).and_then(|change| change.old.clone()).context("the object before it left")?;
    ensure!(left.metadata.labels.get("app").is_some_and(|value| &**value == "api"));
    Ok(())
}

#[tokio::test]
async fn a_selector_without_a_wide_stream_means_the_same() -> Result<()> {
    let stage = Stage::new("events-selected").await?;
    let host = stage.host();
    stage.put_labelled("other", "1", json!({ "app": "db" })).await?;
    let narrow = Scope { label_selector: "app!=db".into(), ..stage.scope() };
    let (_narrow, heard) = host.subscribe(&narrow)?;
    heard.synced().await?;
    stage.put_labelled("a", "1", json!({ "app": "web" })).await?;
    stage.put_labelled("a", "2", json!({ "app": "db" })).await?;
    stage.put("a", "3").await?;
    let all = heard.until("three changes", |heard| heard.words.len() == 3).await?;
    ensure!(all.words == ["+a", "-a", "+a"], "{:?}", all.words);
    Ok(())
}

#[tokio::test]
async fn field_selectors_that_only_the_server_knows_are_left_to_it() -> Result<()> {
    let stage = Stage::new("events-fields").await?;
    let secret = |name: &str, kind: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": kind });
    let api: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(stage.admin.clone(), &stage.namespace);
    for (name, kind) in [("ours", "example.com/ours"), ("other", "Opaque")] {
        api.create(&kube::api::PostParams::default(), &serde_json::from_value(secret(name, kind))?).await?;
    }
    let host = stage.host();
    let scope = Scope {
        resource: wasm_operator_core::watch::Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "Secret".into(),
            plural: "secrets".into(),
        },
        field_selector: "type=example.com/ours".into(),
        ..stage.scope()
    };
    let (_subscription, heard) = host.subscribe(&scope)?;
    ensure!(heard.synced().await?.words == ["*ours"]);
    Ok(())
}

#[tokio::test]
async fn a_malformed_selector_is_refused() -> Result<()> {
    let stage = Stage::new("events-malformed").await?;
    let host = stage.host();
    for scope in [
        Scope { label_selector: "app in".into(), ..stage.scope() },
        Scope { field_selector: "metadata.name".into(), ..stage.scope() },
    ] {
        ensure!(host.subscribe(&scope).is_err());
    }
    Ok(())
}
