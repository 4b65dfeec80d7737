//! Writes: whose fields they are, and what is left of them.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::stage::{Stage, config_map, everything};

fn managers(object: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let fields = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<_> = fields.iter().map(|field| (text(&field["manager"]), text(&field["operation"]))).collect();
    all.sort();
    all
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn fields_are_owned_by_the_guests_name() -> Result<()> {
    let stage = Stage::new("writes-managers").await?;
    stage.grant_all("a").await?;
    let guest = stage.guest("a")?;
    let path = stage.path("configmaps/x");
    guest.send("POST", &stage.path("configmaps"), &config_map("x", "1")).await?.expect(201)?;
    let mut applied = config_map("x", "1");
    applied["data"] = json!({ "applied": "1" });
    guest.send("PATCH", &format!("{path}?fieldManager=main&force=true"), &applied).await?.expect(200)?;
    let merge = [("content-type", "application/merge-patch+json")];
    guest.send_as("PATCH", &path, &json!({ "data": { "merged": "1" } }), &merge).await?.expect(200)?;
    let object = stage.direct("GET", &path, &Value::Null).await?.expect(200)?;
    ensure!(managers(&object) == pairs(&[("a", "Update"), ("a/main", "Apply")]), "{:?}", managers(&object));
    Ok(())
}

#[tokio::test]
async fn an_adopted_field_manager_keeps_the_fields_of_a_native_controller() -> Result<()> {
    let stage = Stage::new("writes-adopted").await?;
    stage.grant_all("a").await?;
    let path = stage.path("configmaps/x");
    let code = stage.direct("PATCH", &format!("{path}?fieldManager=native"), &config_map("x", "1")).await?.code;
    ensure!(code == 201, "{code}");
    let mut access = stage.access("a", vec![everything()])?;
    let stranger = crate::stage::Guest(stage.gateway.guest(access.clone())?);
    ensure!(stranger.send("PATCH", &path, &config_map("x", "2")).await?.code == 409, "a field conflict");
    access.adopt_field_manager = Some("native".to_owned());
    let guest = crate::stage::Guest(stage.gateway.guest(access)?);
    guest.send("PATCH", &path, &config_map("x", "2")).await?.expect(200)?;
    let object = stage.direct("GET", &path, &Value::Null).await?.expect(200)?;
    ensure!(managers(&object) == pairs(&[("native", "Apply")]), "{:?}", managers(&object));
    Ok(())
}

#[tokio::test]
async fn a_read_modify_write_without_managed_fields_keeps_them() -> Result<()> {
    let stage = Stage::new("writes-kept").await?;
    stage.grant_all("a").await?;
    let guest = stage.guest("a")?;
    let path = stage.path("configmaps/x");
    let code = stage.direct("PATCH", &format!("{path}?fieldManager=someone"), &config_map("x", "1")).await?.code;
    ensure!(code == 201, "{code}");
    let mut object = guest.get(&path).await?.expect(200)?;
    ensure!(object["metadata"].get("managedFields").is_none(), "{object}");
    object["data"]["more"] = json!("1");
    let answer = guest.send("PUT", &path, &object).await?.expect(200)?;
    ensure!(answer["metadata"].get("managedFields").is_none(), "{answer}");
    let object = stage.direct("GET", &path, &Value::Null).await?.expect(200)?;
    ensure!(managers(&object) == pairs(&[("a", "Update"), ("someone", "Apply")]), "{:?}", managers(&object));
    let list = guest.get(&stage.path("configmaps")).await?;
    ensure!(!list.text.contains("managedFields") && list.json()?["items"][0]["data"]["more"] == "1", "{list:?}");
    let watch = guest.get(&stage.path("configmaps?watch=true&timeoutSeconds=1")).await?;
    ensure!(!watch.text.contains("managedFields") && watch.text.contains("ADDED"), "{watch:?}");
    Ok(())
}

// Rule 7
#[tokio::test]
async fn what_creates_needs_the_right_to_create() -> Result<()> {
    let stage = Stage::new("writes-create").await?;
    stage.grant_all("a").await?;
    let lease =
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "x" }, "spec": {} });
    let lease_path = "/apis/coordination.k8s.io/v1/namespaces/writes-create/leases/x";
    let mut changes_only = everything();
    changes_only.verbs = ["get", "update", "patch"].map(str::to_owned).to_vec();
    let guest = stage.guest_with("a", vec![changes_only])?;
    ensure!(guest.send("PATCH", &stage.path("configmaps/x"), &config_map("x", "1")).await?.code == 403);
    ensure!(guest.send("PUT", lease_path, &lease).await?.code == 403);
    let guest = stage.guest("a")?;
    guest.send("PATCH", &stage.path("configmaps/x"), &config_map("x", "1")).await?.expect(201)?;
    guest.send("PUT", lease_path, &lease).await?.expect(201)?;
    let put = guest.send("PUT", &stage.path("configmaps/y"), &config_map("y", "1")).await?;
    ensure!(put.code == 404, "a PUT does not create this kind: {put:?}");
    Ok(())
}

#[tokio::test]
async fn conflicts_are_handed_on() -> Result<()> {
    let stage = Stage::new("writes-conflict").await?;
    stage.grant_all("a").await?;
    let guest = stage.guest("a")?;
    let old = guest.send("POST", &stage.path("configmaps"), &config_map("x", "1")).await?.expect(201)?;
    let mut new = old.clone();
    new["data"]["value"] = json!("2");
    guest.send("PUT", &stage.path("configmaps/x"), &new).await?.expect(200)?;
    let conflict = guest.send("PUT", &stage.path("configmaps/x"), &old).await?.expect(409)?;
    ensure!(conflict["reason"] == "Conflict", "{conflict}");
    let again = guest.send("POST", &stage.path("configmaps"), &config_map("x", "1")).await?.expect(409)?;
    ensure!(again["reason"] == "AlreadyExists", "{again}");
    let name = again["details"]["name"].as_str().context("details")?;
    ensure!(name == "x");
    Ok(())
}
