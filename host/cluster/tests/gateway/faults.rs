//! What guests get when the network to the server fails.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Proxy, eventually};
use http_body_util::BodyExt as _;
use serde_json::Value;
use wasm_operator_cluster::client;

use crate::stage::{Guest, Stage, config_map, everything};

async fn behind_proxy(stage: &Stage) -> Result<(Proxy, Guest)> {
    let mut config = stage.host.clone();
    let proxy = Proxy::start(config.cluster_url.authority().context("a server")?.as_str().parse()?).await?;
    config.cluster_url = format!("https://{}", proxy.address()).parse()?;
    let gateway = stage.gateway_of(client::from_config(config)?);
    let guest = Guest(gateway.guest(stage.access("a", vec![everything()])?)?);
    Ok((proxy, guest))
}

async fn names(stage: &Stage) -> Result<Vec<String>> {
    let list = stage.direct("GET", &stage.path("configmaps"), &Value::Null).await?.expect(200)?;
    let items = list["items"].as_array().context("items")?;
    Ok(items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn without_a_connection_even_a_post_is_tried_again() -> Result<()> {
    let stage = Stage::new("faults-refused").await?;
    stage.grant_all("a").await?;
    let (proxy, guest) = behind_proxy(&stage).await?;
    proxy.refuse();
    let (path, map) = (stage.path("configmaps"), config_map("x", "1"));
    let post = guest.send("POST", &path, &map);
    let restore = async {
        eventually("it was tried twice", async || {
            ensure!(proxy.accepted() >= 2);
            Ok(())
        })
        .await?;
        proxy.pass();
        anyhow::Ok(())
    };
    let (answer, restored) = tokio::join!(post, restore);
    restored?;
    answer?.expect(201)?;
    ensure!(names(&stage).await? == ["x"]);
    Ok(())
}

#[tokio::test]
async fn a_post_without_an_answer_is_an_unknown_outcome_and_reads_go_to_the_server() -> Result<()> {
    let stage = Stage::new("faults-silent").await?;
    stage.grant_all("a").await?;
    let _cache = stage.config_maps().await?;
    let (proxy, guest) = behind_proxy(&stage).await?;
    // The connection is made, and the right to read from the cache is known.
    let read = format!("{}?resourceVersion=0", stage.path("configmaps"));
    guest.get(&read).await?.expect(200)?;
    guest.get(&stage.path("configmaps")).await?.expect(200)?;
    proxy.freeze();
    let post = http::Request::post(format!("https://kubernetes.default.svc{}", stage.path("configmaps")))
        .body(config_map("x", "1").to_string().into_bytes().into())?;
    let answer = guest.0.send(post, Duration::from_secs(1)).await?;
    ensure!(answer.status() == 504, "{answer:?}");
    let status: Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
    ensure!(status["message"].as_str().is_some_and(|text| text.contains("outcome is unknown")), "{status}");
    // The server may get it late or never: what the guest reads is what the server has.
    proxy.pass();
    eventually("the guest reads what the server has", async || {
        let seen = guest.get(&read).await?.expect(200)?;
        let items = seen["items"].as_array().context("items")?.len();
        ensure!(items == names(&stage).await?.len(), "{seen}");
        Ok(())
    })
    .await
}
