//! Few upstream watches for many subscriptions.

use anyhow::{Result, ensure};
use harness::eventually;
use wasm_operator_cluster::informer::Scope;
use wasm_operator_core::watch::Representation;

use crate::stage::{Stage, config_map, host, label, quick};

#[tokio::test]
async fn a_hundred_subscriptions_share_one_upstream_watch_if_the_host_may_have_it() -> Result<()> {
    let stage = Stage::new("sharing-one").await?;
    stage.put("present", "1").await?;
    let host = stage.host();
    let everywhere = Scope { namespaces: vec![], ..stage.scope() };
    let by_name = Scope { field_selector: "metadata.name=present".into(), ..stage.scope() };
    let scopes = [stage.scope(), everywhere, by_name];
    let all: Vec<_> = scopes.iter().cycle().take(100).map(|scope| host.subscribe(scope)).collect::<Result<_>>()?;
    for (subscription, heard) in &all {
        ensure!(heard.synced().await?.has("*present"));
        ensure!(subscription.is_synced());
    }
    ensure!(host.streams() == 1, "{} streams", host.streams());
    ensure!(host.metrics.watch_subscribers.get_or_create(&label(&config_map())).get() == 100);
    stage.put("later", "1").await?;
    for (index, (_, heard)) in all.iter().enumerate() {
        if index % 3 != 2 {
            heard.word("+later").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_the_wide_right_there_is_one_watch_for_each_namespace() -> Result<()> {
    let stage = Stage::new("sharing-narrow").await?;
    let other = "sharing-narrow-other";
    stage.create_namespace(other).await?;
    let account = stage.account("host").await?;
    for namespace in [&stage.namespace, other] {
        stage.grant(&stage.user("host"), Some(namespace)).await?;
    }
    let host = host(wasm_operator_cluster::client::from_config(account)?, quick());
    let both = Scope { namespaces: vec![stage.namespace.clone(), other.to_owned()], ..stage.scope() };
    stage.put("a", "1").await?;
    let subscriptions: Vec<_> =
        [&both, &stage.scope(), &both].into_iter().map(|scope| host.subscribe(scope)).collect::<Result<_>>()?;
    for (_, heard) in &subscriptions {
        ensure!(heard.synced().await?.sorted() == ["*a"]);
    }
    ensure!(host.streams() == 2, "{} streams", host.streams());
    Ok(())
}

#[tokio::test]
async fn a_subscription_of_several_namespaces_is_synced_when_all_of_them_are() -> Result<()> {
    let stage = Stage::new("sharing-partial").await?;
    let other = "sharing-partial-other";
    stage.create_namespace(other).await?;
    let account = stage.account("host").await?;
    stage.grant(&stage.user("host"), Some(&stage.namespace)).await?;
    let host = host(wasm_operator_cluster::client::from_config(account)?, quick());
    let both = Scope { namespaces: vec![stage.namespace.clone(), other.to_owned()], ..stage.scope() };
    let (subscription, heard) = host.subscribe(&both)?;
    stage.put("a", "1").await?;
    // The granted namespace is read while the other one is parked.
    heard.until("an object", |heard| !heard.words.is_empty()).await?;
    ensure!(!heard.heard().states.iter().any(|state| state.has_objects()), "{:?}", heard.heard().states);
    ensure!(!subscription.is_synced());
    stage.grant(&stage.user("host"), Some(other)).await?;
    heard.synced().await?;
    ensure!(subscription.is_synced());
    Ok(())
}

#[tokio::test]
async fn a_late_subscription_hears_of_what_is_there() -> Result<()> {
    let stage = Stage::new("sharing-late").await?;
    let host = stage.host();
    let (_first, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    stage.put("a", "1").await?;
    heard.word("+a").await?;
    let (_second, late) = host.subscribe(&stage.scope())?;
    ensure!(late.synced().await?.words == ["*a"]);
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_after_its_last_subscription_and_what_it_held_is_gone() -> Result<()> {
    let stage = Stage::new("sharing-end").await?;
    stage.put("a", "1").await?;
    let host = stage.host();
    let (first, heard) = host.subscribe(&stage.scope())?;
    let (second, _) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    drop(first);
    drop(second);
    eventually("no stream is left", async || {
        ensure!(host.streams() == 0);
        Ok(())
    })
    .await?;
    let label = label(&config_map());
    ensure!(host.metrics.watch_subscribers.get_or_create(&label).get() == 0);
    ensure!(host.metrics.cache_objects.get_or_create(&label).get() == 0);
    ensure!(host.metrics.cache_bytes.get_or_create(&label).get() == 0);
    Ok(())
}

#[tokio::test]
async fn a_subscription_again_within_the_linger_time_lists_nothing_anew() -> Result<()> {
    let stage = Stage::new("sharing-linger").await?;
    let host = host(stage.admin.clone(), wasm_operator_cluster::informer::Options::default());
    let (first, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    drop(first);
    let (_again, heard) = host.subscribe(&stage.scope())?;
    let states = heard.synced().await?.states;
    ensure!(states.len() == 1, "it was synced at once: {states:?}");
    Ok(())
}

#[tokio::test]
async fn metadata_and_whole_objects_are_different_streams() -> Result<()> {
    let stage = Stage::new("sharing-representation").await?;
    stage.put("a", "1").await?;
    let host = stage.host();
    let metadata = Scope { representation: Representation::Metadata, ..stage.scope() };
    let (_full, whole) = host.subscribe(&stage.scope())?;
    let (_metadata, partial) = host.subscribe(&metadata)?;
    let content = |heard: crate::stage::Heard| heard.changes.first().and_then(|change| change.new.clone());
    let whole = content(whole.synced().await?).ok_or_else(|| anyhow::anyhow!("an object"))?;
    let partial = content(partial.synced().await?).ok_or_else(|| anyhow::anyhow!("an object"))?;
    ensure!(whole.field(".data.value").as_deref() == Some("1"));
    ensure!(partial.field(".data.value").is_none());
    ensure!(whole.metadata == partial.metadata);
    ensure!(whole.field(".kind").as_deref() == Some("ConfigMap"));
    ensure!(whole.field(".apiVersion").as_deref() == Some("v1"));
    ensure!(!String::from_utf8_lossy(&whole.json).contains("managedFields"));
    ensure!(!String::from_utf8_lossy(&partial.json).contains("managedFields"));
    ensure!(host.streams() == 2);
    Ok(())
}

#[tokio::test]
async fn many_selectors_of_one_kind_share_the_stream_of_everything() -> Result<()> {
    let stage = Stage::new("sharing-selectors").await?;
    let host = stage.host();
    let mut subscriptions = Vec::new();
    for number in 0..20 {
        stage.put_labelled(&format!("n{number}"), "1", serde_json::json!({ "n": number.to_string() })).await?;
    }
    for number in 0..20 {
        let scope = Scope { label_selector: format!("n={number}"), ..stage.scope() };
        let (subscription, heard) = host.subscribe(&scope)?;
        ensure!(heard.synced().await?.words == [format!("*n{number}")]);
        subscriptions.push(subscription);
    }
    ensure!(host.streams() == 9, "eight for selectors and one for the rest, not {}", host.streams());
    Ok(())
}
