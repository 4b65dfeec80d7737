//! The same watches beside those of the API server, event for event.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use futures::AsyncBufReadExt as _;
use harness::PATIENCE;
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Lines, version, words};
use crate::stage::Stage;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// The name of the object that ends a watch, or its beginning.
const LAST: &str = "zz-last";

/// Opens a watch of the server itself; what it returns reads the events until the last object is there.
async fn of_server(client: &Client, path: &str, accept: &str) -> Result<JoinHandle<Result<Vec<Value>>>> {
    let request = http::Request::get(path).header("accept", accept).body(Vec::new())?;
    let body = client.request_stream(request).await?;
    Ok(tokio::spawn(async move {
        let mut body = std::pin::pin!(body);
        let mut events = Vec::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, body.read_line(&mut line)).await.context("no event in time")??;
            let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            // When the server sends other bookmarks than the one that ends the beginning is its own affair.
            if event["type"] == "BOOKMARK" && event["object"]["metadata"]["annotations"].is_null() {
                continue;
            }
            let is_last = is_last(&event);
            events.push(event);
            if is_last {
                return Ok(events);
            }
        }
    }))
}

async fn until_last(lines: &mut Lines) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    loop {
        let event = lines.next().await?.context("the watch ended")?;
        let is_last = is_last(&event);
        events.push(event);
        if is_last {
            return Ok(events);
        }
    }
}

fn is_last(event: &Value) -> bool {
    event["object"]["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(LAST))
}

fn normal(event: &Value) -> Value {
    let mut event = event.clone();
    let is_bookmark = event["type"] == "BOOKMARK";
    if let Some(metadata) = event["object"]["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        // Only in the server's bookmarks of some releases.
        if metadata.get("creationTimestamp").is_some_and(Value::is_null) {
            metadata.remove("creationTimestamp");
        }
        // The server may know that it is further, by what happened to other kinds.
        if is_bookmark {
            metadata.remove("resourceVersion");
        }
    }
    event
}

/// Whether `mine` are `theirs`, but for states that were overtaken before they were read.
fn compare(path: &str, mine: &[Value], theirs: &[Value]) -> Result<()> {
    let key = |event: &Value| {
        let version = if event["type"] == "BOOKMARK" { "" } else { version(event) };
        format!("{} {version}", event["object"]["metadata"]["name"])
    };
    let known: HashMap<String, Value> = theirs.iter().map(|event| (key(event), normal(event))).collect();
    let mut mine_by_key: HashMap<String, &Value> = HashMap::new();
    for event in mine {
        let theirs = known.get(&key(event)).with_context(|| format!("{path}: the server has no {event}"))?;
        let mut event_as_theirs = normal(event);
        if event["type"] == "ADDED" && theirs["type"] == "MODIFIED" {
            // The addition itself was left out.
            event_as_theirs["type"] = "MODIFIED".into();
        }
        ensure!(event_as_theirs == *theirs, "{path}\n{event_as_theirs}\n{theirs}");
        mine_by_key.insert(key(event), event);
    }
    for (index, event) in theirs.iter().enumerate() {
        if !mine_by_key.contains_key(&key(event)) {
            let name = &event["object"]["metadata"]["name"];
            let later = theirs.iter().skip(index + 1).any(|later| later["object"]["metadata"]["name"] == *name);
            let came_and_went = event["type"] == "DELETED";
            ensure!(later || came_and_went, "{path}: {} is missing", words(event));
        }
    }
    let versions: Vec<u64> = mine
        .iter()
        .skip_while(|event| event["type"] == "ADDED" && event["object"]["data"]["value"] == "before")
        .filter_map(|event| version(event).parse().ok())
        .collect();
    ensure!(versions.is_sorted(), "{path}: {versions:?}");
    Ok(())
}

#[tokio::test]
async fn watches_are_those_of_the_server_event_for_event() -> Result<()> {
    let stage = Stage::new("watches-same").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let names = ["a", "b", "c", "d", "e"];
    for name in &names[..3] {
        stage.put(name, "before", if *name == "a" { "in" } else { "out" }).await?;
    }
    let list = guest.get(&stage.path("configmaps?limit=500")).await?.expect(200)?;
    let from = list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut asked = Vec::new();
    for query in [
        String::new(),
        "&resourceVersion=0".to_owned(),
        format!("&resourceVersion={from}"),
        format!("&resourceVersion={from}&labelSelector=l%3Din"),
        "&labelSelector=l%21%3Din".to_owned(),
        format!("&resourceVersion={from}&fieldSelector=metadata.name%21%3Db"),
        format!("&{streaming}"),
        format!("&{streaming}&resourceVersion=0&labelSelector=l+in+(in)"),
        format!("&{streaming}&resourceVersion={from}"),
    ] {
        for accept in ["application/json", METADATA] {
            asked.push((stage.path(&format!("configmaps?watch=1{query}")), accept));
        }
    }
    // All of them begin before anything changes.
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for (path, accept) in &asked {
        mine.push(guest.open(path, accept).await?);
        theirs.push(of_server(&stage.admin, path, accept).await?);
    }
    let writes = async {
        let mut random = harness::Random::from_environment();
        let mut alive: Vec<&str> = names[..3].to_vec();
        for round in 0..120 {
            let name = names[random.below(names.len() as u64) as usize];
            let label = if random.below(2) == 0 { "in" } else { "out" };
            match random.below(4) {
                0 if alive.contains(&name) => {
                    alive.retain(|known| *known != name);
                    stage.delete(name).await?;
                }
                _ => {
                    if !alive.contains(&name) {
                        alive.push(name);
                    }
                    stage.put(name, &round.to_string(), label).await?;
                }
            }
        }
        // Once for each selector.
        for label in ["in", "out"] {
            stage.put(&format!("{LAST}-{label}"), "last", label).await?;
        }
        anyhow::Ok(())
    };
    let (written, mine) = tokio::join!(writes, futures::future::join_all(mine.iter_mut().map(until_last)));
    written?;
    for (((path, _), mine), theirs) in asked.iter().zip(mine).zip(theirs) {
        compare(path, &mine?, &theirs.await??)?;
    }
    ensure!(stage.upstream_reads() == 0, "{} watches went to the server", stage.upstream_reads());
    Ok(())
}

#[tokio::test]
async fn custom_resources_are_watched_as_from_the_server() -> Result<()> {
    let stage = Stage::new("watches-custom").await?;
    stage.grant_all("a").await?;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "gadgets.watches.example.com" },
        "spec": {
            "group": "watches.example.com", "scope": "Namespaced", "names": { "kind": "Gadget", "plural": "gadgets" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    });
    stage.direct("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await?.expect(201)?;
    let rules = json!([{ "apiGroups": ["watches.example.com"], "resources": ["gadgets"], "verbs": ["list", "watch"] }]);
    crate::stage::grant_everywhere(&stage.admin, "watches-custom-host", &stage.user("host"), &rules).await?;
    let path = format!("/apis/watches.example.com/v1/namespaces/{}/gadgets", stage.namespace);
    let gadget = |name: &str| json!({ "apiVersion": "watches.example.com/v1", "kind": "Gadget", "metadata": { "name": name }, "spec": { "odd": [1.5, null] } });
    harness::eventually("the kind is served", async || stage.direct("POST", &path, &gadget("a")).await?.expect(201))
        .await?;
    let guest = stage.watching("a")?;
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let watch = format!("{path}?watch=1&{streaming}");
    let theirs = of_server(&stage.admin, &watch, "application/json").await?;
    let mut lines = guest.open(&watch, "application/json").await?;
    let write = async {
        stage.direct("POST", &path, &gadget("b")).await?.expect(201)?;
        stage.direct("DELETE", &format!("{path}/a"), &Value::Null).await?.expect(200)?;
        stage.direct("POST", &path, &gadget(LAST)).await?.expect(201)?;
        anyhow::Ok(())
    };
    let (mine, written) = tokio::join!(until_last(&mut lines), write);
    written?;
    let mine = mine?;
    for event in &mine {
        ensure!(
            event["object"]["kind"] == "Gadget" && event["object"]["apiVersion"] == "watches.example.com/v1",
            "{event}"
        );
    }
    ensure!(stage.streams("gadgets.watches.example.com") == 1);
    compare(&watch, &mine, &theirs.await??)
}
