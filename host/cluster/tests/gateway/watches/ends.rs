//! How watches end, and where they can begin again.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wasm_operator_cluster::gateway::GuestAccess;
use wasm_operator_cluster::informer::Options;
use wasm_operator_core::permission::Rule;
use wasm_operator_devel::{ControlPlane, Options as ControlPlaneOptions};

use super::version;
use crate::stage::{Stage, config_of};

fn quick() -> Options {
    Options { recheck: Duration::from_millis(100), ..Options::default() }
}

async fn server_words(stage: &Stage, path: &str) -> Result<Value> {
    let answer = stage.direct("GET", path, &Value::Null).await?;
    ensure!(answer.code == 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused_as_the_server_refuses_it() -> Result<()> {
    let options = ControlPlaneOptions::default().without_controller_manager().without_watch_cache();
    let control_plane = ControlPlane::start(options).await?;
    let stage = Stage::on(config_of(&control_plane.kubeconfig()).await?, "watches", Options::default()).await?;
    stage.grant_all("a").await?;
    let old = stage.put("x", "1", "in").await?;
    for value in 2..6 {
        stage.put("x", &value.to_string(), "in").await?;
    }
    control_plane.compact_etcd().await?;
    let version = old["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let path = stage.path(&format!("configmaps?watch=1&timeoutSeconds=5&resourceVersion={version}"));
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&path).await?;
    let mut mine = lines.expect("ERROR 410").await?;
    ensure!(lines.next().await?.is_none());
    let mut theirs = server_words(&stage, &path).await?;
    // The server has other words with a watch cache and without.
    for event in [&mut mine, &mut theirs] {
        ensure!(event["object"]["message"].as_str().is_some_and(|message| message.contains("too old")), "{event}");
        event["object"]["message"] = Value::Null;
    }
    ensure!(mine == theirs, "{mine}\n{theirs}");
    Ok(())
}

#[tokio::test]
async fn a_watch_begins_where_the_one_before_ended() -> Result<()> {
    let stage = Stage::new("watches-resume").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let mut first = guest.watch(&stage.path("configmaps?watch=1&labelSelector=l%3Din")).await?;
    stage.put("x", "1", "in").await?;
    let from = version(&first.expect("ADDED x 1").await?).to_owned();
    drop(first);
    stage.put("x", "2", "out").await?;
    stage.put("y", "1", "out").await?;
    stage.put("y", "2", "in").await?;
    stage.put("z", "1", "in").await?;
    let path = format!("configmaps?watch=1&labelSelector=l%3Din&resourceVersion={from}");
    let mut second = guest.watch(&stage.path(&path)).await?;
    for expected in ["DELETED x 1", "ADDED y 2", "ADDED z 1"] {
        second.expect(expected).await?;
    }
    // From a version that the stream has not seen yet nothing is told that is older. The stream of everything is open
    // before: it knows no version from before its first list, and other tests write meanwhile.
    let everything = guest.watch(&stage.path("configmaps?watch=1")).await?;
    stage.put("z", "2", "in").await?;
    let account = json!({ "metadata": { "name": "of-another-kind" } });
    let ahead = stage.direct("POST", &stage.path("serviceaccounts"), &account).await?.expect(201)?;
    let from = ahead["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let mut third = guest.watch(&stage.path(&format!("configmaps?watch=1&resourceVersion={from}"))).await?;
    drop(everything);
    stage.put("y", "3", "in").await?;
    third.expect("MODIFIED y 3").await?;
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_after_its_time() -> Result<()> {
    let stage = Stage::new("watches-timeout").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1&timeoutSeconds=1")).await?;
    ensure!(lines.next().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn one_watch_too_many_is_refused_until_another_is_closed() -> Result<()> {
    let stage = Stage::new("watches-limit").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let path = stage.path("configmaps?watch=1");
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(guest.watch(&path).await?);
    }
    let refused = guest.get(&path).await?.expect(429)?;
    ensure!(refused["message"].as_str().is_some_and(|message| message.contains("64 watches")), "{refused}");
    all.pop();
    guest.watch(&path).await?;
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_with_the_right_to_it() -> Result<()> {
    let stage = Stage::with_informers("watches-revoked", quick()).await?;
    stage.grant_all("a").await?;
    stage.put("x", "1", "in").await?;
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    lines.expect("ADDED x 1").await?;
    stage.revoke("a").await?;
    let end = lines.expect("ERROR 403").await?;
    let expected = format!(
        r#"configmaps is forbidden: User "{}" cannot watch resource "configmaps" in API group "" in the namespace "{}""#,
        stage.user("a"),
        stage.namespace
    );
    ensure!(end["object"]["message"] == expected.as_str() && end["object"]["reason"] == "Forbidden", "{end}");
    ensure!(lines.next().await?.is_none());
    // What comes next is the server's word.
    let refused = guest.get(&stage.path("configmaps?watch=1")).await?.expect(403)?;
    ensure!(refused["message"].as_str().is_some_and(|message| message.starts_with(&expected)), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_when_the_guests_rules_do_not_allow_it_any_more() -> Result<()> {
    let stage = Stage::new("watches-rules").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    let secrets = Rule {
        api_groups: vec![String::new()],
        resources: vec!["secrets".into()],
        verbs: vec!["watch".into()],
        resource_names: vec![],
        namespaces: vec![],
    };
    let access = GuestAccess { shared_watches: true, ..stage.access("a", vec![secrets])? };
    stage.gateway.guest(access)?;
    lines.expect("ERROR 403").await?;
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_with_its_guest() -> Result<()> {
    let stage = Stage::new("watches-guest").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    drop(guest);
    ensure!(lines.next().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn secrets_are_watched_with_ones_own_stream() -> Result<()> {
    let stage = Stage::new("watches-secrets").await?;
    stage.grant_all("a").await?;
    stage.grant_all("b").await?;
    let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"] }]);
    crate::stage::grant_everywhere(&stage.admin, "watches-secrets-host", &stage.user("host"), &secrets).await?;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "x" } });
    stage.direct("POST", &stage.path("secrets"), &secret).await?.expect(201)?;
    let (a, b) = (stage.watching("a")?, stage.watching("b")?);
    let path = stage.path("secrets?watch=1");
    let (mut first, mut second) = (a.watch(&path).await?, b.watch(&path).await?);
    let _again = a.watch(&path).await?;
    first.expect("ADDED x ").await?;
    second.expect("ADDED x ").await?;
    ensure!(stage.streams("secrets") == 2, "{} streams", stage.streams("secrets"));
    Ok(())
}

#[tokio::test]
async fn what_a_stream_cannot_serve_is_the_servers_to_answer() -> Result<()> {
    let stage = Stage::new("watches-forward").await?;
    stage.grant_all("a").await?;
    stage.put("x", "1", "in").await?;
    let guest = stage.watching("a")?;
    // A table; a kind that the host may not watch; options that are refused.
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let mut lines = guest.open(&stage.path("configmaps?watch=1"), table).await?;
    let event = lines.next().await?.unwrap_or_default();
    ensure!(event["object"]["kind"] == "Table", "{event}");
    let account = stage.path("serviceaccounts?watch=1");
    let mut lines = guest.watch(&account).await?;
    let event = lines.next().await?.unwrap_or_default();
    ensure!(event["object"]["kind"] == "ServiceAccount", "{event}");
    ensure!(event["object"]["metadata"].get("managedFields").is_none());
    let unknown = guest.get(&stage.path("configmaps?watch=1&fieldSelector=data.value%3Dx")).await?;
    ensure!(unknown.code == 400, "{unknown:?}");
    let odd = guest.get(&stage.path("configmaps?watch=1&sendInitialEvents=true")).await?;
    ensure!(odd.code == 422, "{odd:?}");
    let none = format!("/apis/none.example.com/v1/namespaces/{}/things?watch=1", stage.namespace);
    let none = guest.get(&none).await?;
    ensure!(none.code == 404, "{none:?}");
    ensure!(stage.streams("configmaps") <= 1);
    Ok(())
}

#[tokio::test]
async fn a_watch_that_the_server_serves_lasts_as_well() -> Result<()> {
    let stage = Stage::new("watches-forwarded").await?;
    stage.grant_all("a").await?;
    let mut access = stage.watching_access("a", "a")?;
    access.limits.request_milliseconds = 2_000;
    access.limits.requests_in_flight = 1;
    let guest = crate::stage::Guest(stage.gateway.guest(access)?);
    let path = stage.path("serviceaccounts?watch=1&fieldSelector=metadata.name%3Dlate");
    let (mut first, mut second) = (guest.watch(&path).await?, guest.watch(&path).await?);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "late" } });
    stage.direct("POST", &stage.path("serviceaccounts"), &account).await?.expect(201)?;
    first.expect("ADDED late ").await?;
    second.expect("ADDED late ").await?;
    Ok(())
}

#[tokio::test]
async fn a_restarted_api_server_is_not_noticed() -> Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneOptions::default().without_controller_manager()).await?;
    let stage = Stage::on(config_of(&control_plane.kubeconfig()).await?, "watches", Options::default()).await?;
    stage.grant_all("a").await?;
    stage.put("x", "1", "in").await?;
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    lines.expect("ADDED x 1").await?;
    control_plane.kill_apiserver()?;
    control_plane.start_apiserver().await?;
    stage.put("x", "2", "in").await?;
    stage.delete("x").await?;
    stage.put("y", "1", "in").await?;
    let first = lines.words().await?;
    if first == "MODIFIED x 2" {
        lines.expect("DELETED x 2").await?;
    } else {
        // It came in one piece.
        ensure!(first == "DELETED x 2" || first == "DELETED x 1", "{first}");
    }
    lines.expect("ADDED y 1").await?;
    Ok(())
}
