//! Unmodified kube-rs programs on the gateway.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use harness::{PATIENCE, eventually};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::metadata::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Controller, WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use super::client_of;
use crate::stage::Stage;

fn config_maps(client: Client, stage: &Stage) -> Api<ConfigMap> {
    Api::namespaced(client, &stage.namespace)
}

fn value(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("value")).cloned().unwrap_or_default()
}

/// Follows a watcher into a copy until the copy is as wanted.
async fn follow(
    events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<BTreeMap<String, String>> {
    let mut events = pin!(events);
    let (mut copy, mut fresh) = (BTreeMap::new(), BTreeMap::new());
    let run = async {
        loop {
            match events.try_next().await?.context("a watcher does not end")? {
                Event::Init => fresh.clear(),
                Event::InitApply(map) => drop(fresh.insert(map.name_any(), value(&map))),
                Event::InitDone => copy = std::mem::take(&mut fresh),
                Event::Apply(map) => drop(copy.insert(map.name_any(), value(&map))),
                Event::Delete(map) => drop(copy.remove(&map.name_any())),
            }
            if wanted(&copy) {
                return anyhow::Ok(copy);
            }
        }
    };
    timeout(PATIENCE, run).await.context("not in time")?
}

#[tokio::test]
async fn a_watcher_sees_what_there_is_with_lists_and_with_streaming_lists() -> Result<()> {
    let stage = Stage::new("watches-watcher").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    for number in 0..20 {
        stage.put(&format!("m{number:02}"), "1", "in").await?;
    }
    let in_pages = watcher::Config::default().page_size(5);
    for config in [in_pages, watcher::Config::default().streaming_lists()] {
        let config = config.labels("l=in").timeout(0);
        let events = watch(config_maps(client_of(&guest), &stage), config);
        let wanted = |copy: &BTreeMap<String, String>| {
            copy.len() == 19 && copy.get("m01").is_some_and(|value| value == "2") && !copy.contains_key("m02")
        };
        let change = async {
            stage.put("m01", "2", "in").await?;
            stage.put("m02", "2", "out").await
        };
        let (copy, changed) = tokio::join!(follow(events, wanted), change);
        copy?;
        changed?;
        stage.put("m02", "1", "in").await?;
    }
    ensure!(stage.streams("configmaps") == 1);
    ensure!(stage.upstream_reads() == 0, "{} reads went to the server", stage.upstream_reads());
    Ok(())
}

#[tokio::test]
async fn a_list_that_is_too_large_for_the_guest_comes_in_pages() -> Result<()> {
    let stage = Stage::new("watches-pages").await?;
    stage.grant_all("a").await?;
    let mut access = stage.watching_access("a", "a")?;
    access.limits.response_bytes = 6_000;
    let guest = crate::stage::Guest(stage.gateway.guest(access)?);
    for number in 0..30 {
        stage.put(&format!("m{number:02}"), "1", "in").await?;
    }
    let config = watcher::Config::default().page_size(5).timeout(0);
    let events = watch(config_maps(client_of(&guest), &stage), config);
    let change = async {
        stage.put("m01", "2", "in").await?;
        stage.delete("m02").await
    };
    let wanted =
        |copy: &BTreeMap<String, String>| copy.len() == 29 && copy.get("m01").is_some_and(|value| value == "2");
    let (copy, changed) = tokio::join!(follow(events, wanted), change);
    copy?;
    changed?;
    ensure!(stage.upstream_reads() >= 6, "{} pages", stage.upstream_reads());
    ensure!(stage.streams("configmaps") == 1);
    Ok(())
}

#[tokio::test]
async fn a_watcher_of_metadata_sees_nothing_else() -> Result<()> {
    let stage = Stage::new("watches-metadata").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    stage.put("x", "secret", "in").await?;
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client_of(&guest), &stage.namespace);
    let mut events = pin!(watch(metadata, watcher::Config::default().timeout(0)));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = timeout(PATIENCE, events.try_next()).await??.context("a watcher does not end")?;
        match event {
            Event::Init => seen.push("init".to_owned()),
            Event::InitApply(object) => {
                ensure!(object.types.as_ref().is_some_and(|types| types.kind == "PartialObjectMetadata"));
                seen.push(format!("there {}", object.name_any()));
            }
            Event::InitDone => {
                seen.push("done".to_owned());
                stage.delete("x").await?;
            }
            Event::Apply(object) => seen.push(format!("applied {}", object.name_any())),
            Event::Delete(object) => seen.push(format!("deleted {}", object.name_any())),
        }
    }
    ensure!(seen == ["init", "there x", "done", "deleted x"], "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_controller_reconciles_what_changes() -> Result<()> {
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Failed(#[from] kube::Error);

    async fn reconcile(map: Arc<ConfigMap>, api: Arc<Api<ConfigMap>>) -> Result<Action, Failed> {
        let copy = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("copy-of-{}", map.name_any()), "labels": { "l": "copy" } },
            "data": { "value": value(&map) },
        });
        let name = format!("copy-of-{}", map.name_any());
        api.patch(&name, &PatchParams::apply("copier").force(), &Patch::Apply(&copy)).await?;
        Ok(Action::await_change())
    }

    let stage = Stage::new("watches-controller").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    stage.put("source", "1", "in").await?;
    let api = config_maps(client_of(&guest), &stage);
    let controller = Controller::new(api.clone(), watcher::Config::default().labels("l=in").timeout(0)).run(
        reconcile,
        |_, _, _| Action::requeue(Duration::from_secs(1)),
        Arc::new(api),
    );
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let copies = config_maps(stage.admin.clone(), &stage);
    for round in 1..=5 {
        stage.put("source", &round.to_string(), "in").await?;
        eventually("the copy follows", async || {
            let copy = copies.get("copy-of-source").await?;
            ensure!(value(&copy) == round.to_string(), "{copy:?}");
            Ok(())
        })
        .await?;
    }
    running.abort();
    ensure!(stage.streams("configmaps") == 1);
    Ok(())
}

#[tokio::test]
async fn a_reflector_has_what_the_server_has_after_a_storm_of_changes() -> Result<()> {
    let stage = Stage::new("watches-reflector").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let (mine, mine_writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().timeout(0);
    let events = watch(config_maps(client_of(&guest), &stage), config).reflect(mine_writer).applied_objects();
    let running = tokio::spawn(events.for_each(|_| std::future::ready(())));
    timeout(PATIENCE, mine.wait_until_ready()).await??;
    let direct = config_maps(stage.admin.clone(), &stage);
    let storm = (0..300).map(|number| {
        let (stage, direct) = (&stage, &direct);
        async move {
            let name = format!("m{}", number % 17);
            if number % 5 == 4 {
                let _ = direct.delete(&name, &DeleteParams::default()).await;
                Ok(())
            } else {
                stage.put(&name, &number.to_string(), "in").await.map(drop)
            }
        }
    });
    let written: Vec<_> = futures::stream::iter(storm).buffer_unordered(10).collect().await;
    ensure!(written.iter().all(Result::is_ok), "{written:?}");
    let there: BTreeMap<String, Option<String>> = direct
        .list(&kube::api::ListParams::default())
        .await?
        .into_iter()
        .map(|map| (map.name_any(), map.resource_version()))
        .collect();
    eventually("the copies are equal", async || {
        let copy: BTreeMap<String, Option<String>> =
            mine.state().iter().map(|map| (map.name_any(), map.resource_version())).collect();
        ensure!(copy == there, "{copy:?}\n{there:?}");
        Ok(())
    })
    .await?;
    ensure!(mine.get(&ObjectRef::new("none").within(&stage.namespace)).is_none());
    running.abort();
    Ok(())
}
