//! What a subscription hears when the network, the API server or its history goes away.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::eventually;
use wasm_operator_cluster::informer::{Options, SubscriptionState};
use wasm_operator_devel::{ControlPlane, Options as ControlPlaneOptions};

use crate::stage::{Heard, Host, Stage, config_of, quick};

/// Creates, deletes and recreates while the host is away. `kept`, `lost` and `again` are there before.
async fn change_everything(stage: &Stage) -> Result<()> {
    stage.delete("lost").await?;
    stage.delete("again").await?;
    stage.put("again", "2").await?;
    stage.put("new", "1").await?;
    Ok(())
}

async fn put_all(stage: &Stage) -> Result<()> {
    for name in ["again", "kept", "lost"] {
        stage.put(name, "1").await?;
    }
    Ok(())
}

const CHANGED: [&str; 4] = ["+again", "+new", "-again", "-lost"];

async fn restarted(host: &Host, cause: &'static str) -> Result<()> {
    eventually("the watch began anew", async || {
        ensure!(host.restarts(cause) > 0, "no restart because it was {cause}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn changes_during_a_cut_connection_are_heard_and_nothing_else() -> Result<()> {
    let stage = Stage::new("faults-cut").await?;
    put_all(&stage).await?;
    let (host, proxy) = stage.host_behind_proxy(quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    ensure!(heard.synced().await?.sorted() == ["*again", "*kept", "*lost"]);
    proxy.refuse();
    change_everything(&stage).await?;
    proxy.pass();
    let all = heard.until("all changes", |heard| heard.words.len() == 7).await?;
    let later: Vec<_> = all.words.iter().skip(3).cloned().collect();
    ensure!(later == ["-lost", "-again", "+again", "+new"], "{later:?}");
    Ok(())
}

#[tokio::test]
async fn a_cut_without_changes_is_not_heard() -> Result<()> {
    let stage = Stage::new("faults-quiet").await?;
    put_all(&stage).await?;
    let (host, proxy) = stage.host_behind_proxy(quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    for round in 1..=3 {
        proxy.cut();
        let synced = |heard: &Heard| heard.states.iter().filter(|state| **state == SubscriptionState::Synced).count();
        heard.until("the watch is opened again", |heard| synced(heard) > round).await?;
    }
    // What is heard after the cuts is the next change.
    stage.put("kept", "2").await?;
    ensure!(heard.word("~kept").await?.words.len() == 4);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up() -> Result<()> {
    let stage = Stage::new("faults-silent").await?;
    put_all(&stage).await?;
    // Bookmarks come every minute: with so little patience every quiet watch counts as dead, which is not heard either.
    let options = Options { silence: Duration::from_secs(1), ..quick() };
    let (host, proxy) = stage.host_behind_proxy(options).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    proxy.freeze_open();
    change_everything(&stage).await?;
    let all = heard.until("all changes", |heard| heard.words.len() >= 7).await?;
    let mut later: Vec<_> = all.words.iter().skip(3).cloned().collect();
    later.sort();
    ensure!(later == CHANGED, "{later:?}");
    ensure!(host.restarts("silent") > 0);
    Ok(())
}

#[tokio::test]
async fn a_restarted_api_server_loses_nothing() -> Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneOptions::default().without_controller_manager()).await?;
    let stage = Stage::on(config_of(&control_plane.kubeconfig()).await?, "faults").await?;
    put_all(&stage).await?;
    let (host, proxy) = stage.host_behind_proxy(quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    control_plane.kill_apiserver()?;
    restarted(&host, "failed").await?;
    // It comes back, and changes happen before the host finds it.
    proxy.refuse();
    control_plane.start_apiserver().await?;
    change_everything(&stage).await?;
    proxy.pass();
    let all = heard.until("all changes", |heard| heard.words.len() >= 7).await?;
    let mut later: Vec<_> = all.words.iter().skip(3).cloned().collect();
    later.sort();
    ensure!(later == CHANGED, "{later:?}");
    Ok(())
}

/// The history between the last event and now is compacted away: the resume gets 410.
#[tokio::test]
async fn what_a_compaction_took_away_is_found_by_listing() -> Result<()> {
    let options = ControlPlaneOptions::default().without_controller_manager().without_watch_cache();
    let control_plane = ControlPlane::start(options).await?;
    let stage = Stage::on(config_of(&control_plane.kubeconfig()).await?, "faults").await?;
    put_all(&stage).await?;
    let (host, proxy) = stage.host_behind_proxy(quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    proxy.refuse();
    change_everything(&stage).await?;
    control_plane.compact_etcd().await?;
    proxy.pass();
    let all = heard.until("all changes", |heard| heard.words.len() >= 7).await?;
    let mut later: Vec<_> = all.words.iter().skip(3).cloned().collect();
    later.sort();
    ensure!(later == CHANGED, "{later:?}");
    ensure!(host.restarts("expired") == 1, "{} resumes were refused", host.restarts("expired"));
    Ok(())
}

#[tokio::test]
async fn lists_come_in_pages_where_the_server_does_not_stream_them() -> Result<()> {
    let options =
        ControlPlaneOptions::default().without_controller_manager().apiserver_arg("--feature-gates=WatchList=false");
    let control_plane = ControlPlane::start(options).await?;
    let stage = Stage::on(config_of(&control_plane.kubeconfig()).await?, "faults").await?;
    let writes = (0..1_010).map(|number| {
        let stage = &stage;
        async move { stage.put(&format!("n{number}"), "1").await }
    });
    use futures::StreamExt as _;
    let written: Vec<_> = futures::stream::iter(writes).buffer_unordered(20).collect().await;
    ensure!(written.iter().all(Result::is_ok));
    let host = stage.host();
    let (subscription, heard) = host.subscribe(&stage.scope())?;
    ensure!(heard.synced().await?.words.len() == 1_010);
    ensure!(subscription.list().len() == 1_010);
    ensure!(host.restarts("unsupported") == 1);
    stage.put("later", "1").await?;
    heard.word("+later").await?;
    Ok(())
}
