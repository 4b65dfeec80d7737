//! Reads of any version: what the cache answers, to whom, and when.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use wasm_operator_core::watch::{Representation, Resource};

use crate::stage::{Guest, Stage, config_map, config_map_kind, everything};

const LIST_OF_METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

fn without(mut value: Value, forget: &dyn Fn(&mut Value)) -> Value {
    forget(&mut value);
    value
}

/// What differs between two answers to the same question without being a difference in form. An empty list of metadata
/// has `items: null` from the server; an empty array is what every client reads.
fn forget_versions(list: &mut Value) {
    list["metadata"]["resourceVersion"] = json!("");
    if list["items"].is_null() {
        list["items"] = json!([]);
    }
    for item in list["items"].as_array_mut().into_iter().flatten() {
        if let Some(metadata) = item["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    }
}

async fn compare(stage: &Stage, guest: &Guest, path: &str, accept: &str) -> Result<()> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}resourceVersion=0");
    let before = stage.upstream_reads();
    let cached = guest.send_as("GET", &path, &Value::Null, &[("accept", accept)]).await?.expect(200)?;
    ensure!(stage.upstream_reads() == before, "{path} was not answered from the cache");
    let request = http::Request::get(&path).header("accept", accept).body(kube::client::Body::empty())?;
    let direct = stage.admin.send(request).await?.into_body().collect_bytes().await?;
    let direct: Value = serde_json::from_slice(&direct)?;
    if cached["items"].is_array() {
        ensure!(
            without(cached.clone(), &forget_versions) == without(direct.clone(), &forget_versions),
            "{path} {accept}\n{cached}\n{direct}"
        );
    } else {
        let forget = |object: &mut Value| {
            object["metadata"]["managedFields"] = Value::Null;
        };
        ensure!(
            without(cached.clone(), &forget) == without(direct.clone(), &forget),
            "{path} {accept}\n{cached}\n{direct}"
        );
    }
    Ok(())
}

// Rules 9 to 12
#[tokio::test]
async fn the_cache_answers_in_the_servers_form() -> Result<()> {
    let stage = Stage::new("cached-form").await?;
    stage.grant_all("a").await?;
    for (name, app) in [("x", "one"), ("y", "two"), ("x-1", "one"), ("x.1", "three")] {
        let mut map = config_map(name, app);
        map["metadata"]["labels"] = json!({ "app": app });
        stage.direct("POST", &stage.path("configmaps"), &map).await?.expect(201)?;
    }
    let _cache = stage.config_maps().await?;
    let guest = stage.guest("a")?;
    for path in [
        "configmaps",
        "configmaps?labelSelector=app%3Done",
        "configmaps?labelSelector=app+notin+(one,two)",
        "configmaps?labelSelector=none",
        "configmaps?labelSelector=!none",
        "configmaps?fieldSelector=metadata.name%3Dy",
        "configmaps?fieldSelector=metadata.name!%3Dy",
        "configmaps?limit=1",
    ] {
        compare(&stage, &guest, &stage.path(path), "application/json").await?;
        compare(&stage, &guest, &stage.path(path), LIST_OF_METADATA).await?;
    }
    for accept in ["application/json", METADATA] {
        compare(&stage, &guest, &stage.path("configmaps/x"), accept).await?;
    }
    let missing = guest.get(&stage.path("configmaps/none?resourceVersion=0")).await?.expect(404)?;
    let direct =
        stage.direct("GET", &stage.path("configmaps/none?resourceVersion=0"), &Value::Null).await?.expect(404)?;
    ensure!(missing == direct, "{missing}\n{direct}");
    let crossed = guest
        .send_as("GET", &stage.path("configmaps/x?resourceVersion=0"), &Value::Null, &[("accept", LIST_OF_METADATA)])
        .await?;
    ensure!(crossed.code == 406, "{crossed:?}");
    Ok(())
}

// Rule 14
#[tokio::test]
async fn a_cache_of_labelled_objects_answers_for_those_that_it_holds() -> Result<()> {
    let stage = Stage::new("cached-selected").await?;
    stage.grant_all("a").await?;
    let labelled = |name: &str, app: &str| {
        let mut map = config_map(name, app);
        map["metadata"]["labels"] = json!({ "app": app });
        map
    };
    for (name, app) in [("x", "one"), ("y", "two")] {
        stage.direct("POST", &stage.path("configmaps"), &labelled(name, app)).await?.expect(201)?;
    }
    let _cache = stage.cache_of(config_map_kind(), Representation::Full, "app=one").await?;
    let guest = stage.guest("a")?;
    for accept in ["application/json", METADATA] {
        compare(&stage, &guest, &stage.path("configmaps/x"), accept).await?;
    }
    let (x, y) = (stage.path("configmaps/x?resourceVersion=0"), stage.path("configmaps/y?resourceVersion=0"));
    let before = stage.upstream_reads();
    ensure!(guest.get(&y).await?.expect(200)?["data"]["value"] == "two");
    ensure!(stage.upstream_reads() == before + 1, "an object outside the selector is the server's to answer");
    ensure!(guest.get(&stage.path("configmaps/none?resourceVersion=0")).await?.code == 404);

    // The object leaves the selector by a write of the guest itself, and comes back.
    let patch = format!("{}?force=true", stage.path("configmaps/x"));
    for app in ["two", "one", "two"] {
        guest.send("PATCH", &patch, &labelled("x", app)).await?.expect(200)?;
        ensure!(guest.get(&x).await?.expect(200)?["data"]["value"] == app);
    }
    // Deleted and created again without the label.
    guest.send("DELETE", &stage.path("configmaps/x"), &json!({})).await?.expect(200)?;
    ensure!(guest.get(&x).await?.code == 404);
    stage.direct("POST", &stage.path("configmaps"), &labelled("x", "three")).await?.expect(201)?;
    ensure!(guest.get(&x).await?.expect(200)?["data"]["value"] == "three");
    // Who has no right gets nothing of what is held.
    stage.direct("POST", &stage.path("configmaps"), &labelled("z", "one")).await?.expect(201)?;
    ensure!(stage.guest("b")?.get(&stage.path("configmaps/z?resourceVersion=0")).await?.code == 403);
    Ok(())
}

#[tokio::test]
async fn custom_resources_have_their_own_form() -> Result<()> {
    let stage = Stage::new("cached-custom").await?;
    let crd = json!({
        "metadata": { "name": "things.gateway.example.com" },
        "spec": {
            "group": "gateway.example.com", "scope": "Namespaced", "names": { "kind": "Thing", "plural": "things" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    });
    let definitions: Api<CustomResourceDefinition> = Api::all(stage.admin.clone());
    definitions.create(&PostParams::default(), &serde_json::from_value(crd)?).await?;
    stage.grant_all("a").await?;
    let path = "/apis/gateway.example.com/v1/namespaces/cached-custom/things";
    let thing = json!({ "apiVersion": "gateway.example.com/v1", "kind": "Thing", "metadata": { "name": "x" }, "spec": { "odd": [1.5, null] } });
    harness::eventually("the kind is served", async || stage.direct("POST", path, &thing).await?.expect(201)).await?;
    let kind = Resource {
        group: "gateway.example.com".into(),
        version: "v1".into(),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let _cache = stage.cache(kind, Representation::Full).await?;
    let guest = stage.guest("a")?;
    compare(&stage, &guest, path, "application/json").await?;
    compare(&stage, &guest, path, LIST_OF_METADATA).await?;
    compare(&stage, &guest, &format!("{path}/x"), "application/json").await
}

#[tokio::test]
async fn two_guests_with_different_rights_share_one_cache_and_not_its_objects() -> Result<()> {
    let stage = Stage::new("cached-rights").await?;
    stage
        .grant("a", &json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"] }]))
        .await?;
    stage.direct("POST", &stage.path("configmaps"), &config_map("x", "hidden")).await?.expect(201)?;
    let _cache = stage.config_maps().await?;
    let (allowed, denied) = (stage.guest("a")?, stage.guest("b")?);
    for path in [stage.path("configmaps/x?resourceVersion=0"), stage.path("configmaps?resourceVersion=0")] {
        ensure!(allowed.get(&path).await?.expect(200)?.to_string().contains("hidden"));
        let answer = denied.get(&path).await?;
        ensure!(answer.code == 403 && !answer.text.contains("hidden"), "{answer:?}");
    }
    // The right to get one is not the right to list all, nor to get another.
    stage
        .grant(
            "b",
            &json!([{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["y"], "verbs": ["get"] }]),
        )
        .await?;
    let gateway = stage.fresh_gateway()?;
    let denied = Guest(gateway.guest(stage.access("b", vec![everything()])?)?);
    harness::eventually("the grant counts", async || {
        denied.get(&stage.path("configmaps/y?resourceVersion=0")).await?.expect(404)
    })
    .await?;
    ensure!(denied.get(&stage.path("configmaps/x?resourceVersion=0")).await?.code == 403);
    ensure!(denied.get(&stage.path("configmaps?resourceVersion=0")).await?.code == 403);
    Ok(())
}

#[tokio::test]
async fn a_right_that_was_taken_back_ends_cached_reads() -> Result<()> {
    let stage = Stage::new("cached-revoked").await?;
    stage.grant_all("a").await?;
    stage.direct("POST", &stage.path("configmaps"), &config_map("x", "hidden")).await?.expect(201)?;
    let _cache = stage.config_maps().await?;
    let path = stage.path("configmaps/x?resourceVersion=0");
    stage.guest("a")?.get(&path).await?.expect(200)?;
    stage.revoke("a").await?;
    harness::eventually("the server denies", async || {
        // Answers are remembered for a while; a gateway of its own has asked nothing yet.
        let gateway = stage.fresh_gateway()?;
        let guest = Guest(gateway.guest(stage.access("a", vec![everything()])?)?);
        guest.get(&path).await?.expect(403)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_guest_reads_its_own_writes_from_the_cache() -> Result<()> {
    let stage = Stage::new("cached-own").await?;
    stage.grant_all("a").await?;
    let _cache = stage.config_maps().await?;
    let guest = stage.guest("a")?;
    let (one, all) = (stage.path("configmaps/x"), stage.path("configmaps"));
    let (cached_one, cached_all) = (format!("{one}?resourceVersion=0"), format!("{all}?resourceVersion=0"));
    let names = async || -> Result<usize> {
        let list = guest.get(&cached_all).await?.expect(200)?;
        Ok(list["items"].as_array().context("items")?.len())
    };
    for round in 0..20 {
        guest.send("POST", &all, &config_map("x", "created")).await?.expect(201)?;
        ensure!(guest.get(&cached_one).await?.expect(200)?["data"]["value"] == "created", "round {round}");
        ensure!(names().await? == 1);
        let value = format!("changed {round}");
        guest.send("PATCH", &format!("{one}?force=true"), &config_map("x", &value)).await?.expect(200)?;
        ensure!(guest.get(&cached_one).await?.expect(200)?["data"]["value"] == value, "round {round}");

        match round % 4 {
            // Answers a Status without a version.
            0 => drop(guest.send("DELETE", &one, &json!({})).await?.expect(200)?),
            // Answers the items at versions older than the deletes.
            1 => drop(guest.send("DELETE", &all, &Value::Null).await?.expect(200)?),
            // The write that removes the last finalizer answers the old version.
            _ => {
                let merge = [("content-type", "application/merge-patch+json")];
                let finalizers = |all: Value| json!({ "metadata": { "finalizers": all } });
                guest.send_as("PATCH", &one, &finalizers(json!(["example.com/x"])), &merge).await?.expect(200)?;
                guest.send("DELETE", &one, &json!({})).await?.expect(200)?;
                let terminating = guest.get(&cached_one).await?.expect(200)?;
                ensure!(terminating["metadata"]["deletionTimestamp"].is_string(), "round {round}: {terminating}");
                guest.send_as("PATCH", &one, &finalizers(Value::Null), &merge).await?.expect(200)?;
            }
        }
        ensure!(guest.get(&cached_one).await?.code == 404, "round {round}");
        ensure!(names().await? == 0, "round {round}");
    }
    // Only a cache that is five seconds behind is left aside, as it may be on a machine with other things to do.
    ensure!(stage.upstream_reads() < 20, "{} reads went to the server", stage.upstream_reads());
    Ok(())
}

#[tokio::test]
async fn the_echo_of_a_write_is_pending_until_the_cache_has_it() -> Result<()> {
    let stage = Stage::new("cached-echo").await?;
    stage.grant_all("a").await?;
    let cache = stage.config_maps().await?;
    let guest = stage.guest("a")?;
    ensure!(!guest.0.echo_pending());
    for value in 0..10 {
        guest
            .send("PATCH", &format!("{}?force=true", stage.path("configmaps/x")), &config_map("x", &value.to_string()))
            .await?;
        guest.0.echo_settled().await;
        ensure!(!guest.0.echo_pending());
        let seen = cache
            .list()
            .into_iter()
            .any(|object| String::from_utf8_lossy(&object.json).contains(&format!("\"value\":\"{value}\"")));
        ensure!(seen, "value {value}");
    }
    Ok(())
}
