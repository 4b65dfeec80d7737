//! Spellings that the server reads in another way than they look.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::stage::{Stage, config_map, grant_everywhere};

async fn two_maps(stage: &Stage) -> Result<()> {
    for name in ["one", "two"] {
        let code = stage.direct("POST", &stage.path("configmaps"), &config_map(name, "1")).await?.code;
        ensure!(code == 201, "{code}");
    }
    Ok(())
}

async fn count(stage: &Stage) -> Result<usize> {
    let list = stage.direct("GET", &stage.path("configmaps"), &Value::Null).await?.expect(200)?;
    Ok(list["items"].as_array().context("items")?.len())
}

// What the rules are for: these are facts about the server.
#[tokio::test]
async fn the_server_deletes_the_collection_for_an_escaped_slash() -> Result<()> {
    let stage = Stage::new("paths-facts").await?;
    for spelling in ["configmaps/", "configmaps//", "configmaps/%2F"] {
        two_maps(&stage).await?;
        stage.direct("DELETE", &stage.path(spelling), &Value::Null).await?.expect(200)?;
        ensure!(count(&stage).await? == 0, "{spelling}");
    }
    two_maps(&stage).await?;
    stage.direct("GET", &stage.path("configmaps%2Fone"), &Value::Null).await?.expect(200)?;
    stage.direct("GET", &stage.path("configmaps/one").replace("/api/", "/%61pi/"), &Value::Null).await?.expect(200)?;
    stage.direct("DELETE", &stage.path("configmaps/one?dryRun=All"), &json!({})).await?.expect(200)?;
    ensure!(count(&stage).await? == 1, "a body makes the server ignore the query");
    Ok(())
}

#[tokio::test]
async fn no_spelling_deletes_or_reads_more_than_it_says() -> Result<()> {
    let stage = Stage::new("paths-tricks").await?;
    stage.grant_all("a").await?;
    two_maps(&stage).await?;
    let guest = stage.guest("a")?;
    for rest in [
        "configmaps/",
        "configmaps//",
        "configmaps/%2F",
        "configmaps/%2f",
        "configmaps/.",
        "configmaps/..",
        "configmaps/%2e%2e",
        "configmaps/one/",
        "configmaps/%2e%2e%2fconfigmaps",
        "configmaps%2Fone",
        "configmaps/one%00",
        "configmaps/one%3F",
        "../paths-tricks/configmaps/one",
        "ConfigMaps/one",
    ] {
        for (method, body) in [("DELETE", json!({})), ("DELETE", Value::Null), ("GET", Value::Null)] {
            let answer = guest.send(method, &stage.path(rest), &body).await?;
            ensure!((400..=405).contains(&answer.code), "{method} {rest}: {answer:?}");
            ensure!(answer.json()?["kind"] == "Status");
        }
    }
    let dry = guest.send("DELETE", &stage.path("configmaps/one?dryRun=All"), &json!({})).await?;
    ensure!(dry.code == 400, "{dry:?}");
    ensure!(count(&stage).await? == 2);
    guest.send("DELETE", &stage.path("configmaps/one?dryRun=All"), &Value::Null).await?.expect(200)?;
    guest.send("DELETE", &stage.path("configmaps/one"), &json!({ "dryRun": ["All"] })).await?.expect(200)?;
    ensure!(count(&stage).await? == 2);
    guest.send("DELETE", &stage.path("configmaps/one"), &json!({})).await?.expect(200)?;
    ensure!(count(&stage).await? == 1);
    Ok(())
}

#[tokio::test]
async fn every_spelling_of_watch_needs_the_right_to_watch() -> Result<()> {
    let stage = Stage::new("paths-watch").await?;
    stage.grant_all("a").await?;
    let mut rule = crate::stage::everything();
    rule.verbs = vec!["list".to_owned()];
    let guest = stage.guest_with("a", vec![rule])?;
    for query in ["watch", "watch=", "watch=no", "watch=1", "%77atch=true"] {
        ensure!(guest.get(&stage.path(&format!("configmaps?{query}"))).await?.code == 403, "{query}");
    }
    for query in ["watch=0&watch=1", "watch=true;x"] {
        ensure!(guest.get(&stage.path(&format!("configmaps?{query}"))).await?.code == 400, "{query}");
    }
    ensure!(guest.get("/api/v1/watch/configmaps").await?.code == 400);
    guest.get(&stage.path("configmaps?watch=false")).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn names_with_a_colon_reach_their_object() -> Result<()> {
    let stage = Stage::new("paths-colon").await?;
    let read = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["get"] }]);
    grant_everywhere(&stage.admin, "paths-colon", &stage.user("a"), &read).await?;
    let guest = stage.guest("a")?;
    for name in ["system%3Abasic-user", "system:basic-user"] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}");
        let role = harness::eventually("the role is read", async || guest.get(&path).await?.expect(200)).await?;
        ensure!(role["metadata"]["name"] == "system:basic-user");
    }
    Ok(())
}

#[tokio::test]
async fn discovery_is_open_to_guests_and_nothing_beside_it() -> Result<()> {
    let stage = Stage::new("paths-discovery").await?;
    let guest = stage.guest_with("a", Vec::new())?;
    for path in ["/version", "/api", "/apis", "/apis/apps", "/api/v1", "/apis/apps/v1", "/openapi/v3"] {
        guest.get(path).await?.expect(200)?;
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = guest.send_as("GET", "/apis", &Value::Null, &[("accept", aggregated)]).await?.expect(200)?;
    ensure!(groups["kind"] == "APIGroupDiscoveryList", "{}", groups["kind"]);
    for path in ["/healthz", "/metrics", "/logs/", "/openid/v1/jwks", "/.well-known/openid-configuration"] {
        let code = guest.get(path).await?.code;
        ensure!(code == 404 || code == 400, "{path} {code}");
    }
    Ok(())
}
