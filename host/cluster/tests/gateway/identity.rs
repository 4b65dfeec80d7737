//! Who a guest is to the server.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wasm_operator_cluster::client;
use wasm_operator_cluster::gateway::{Gateway, GatewayMetrics, IdentityError, Options};
use wasm_operator_cluster::rights::Rights;

use crate::stage::{Guest, Stage, config_map, everything};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn review() -> Value {
    json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" })
}

#[tokio::test]
async fn the_server_takes_a_guest_for_its_service_account_with_its_groups() -> Result<()> {
    let stage = Stage::new("identity-who").await?;
    for account in ["a", "b"] {
        let answer = stage.guest(account)?.send("POST", WHO, &review()).await?.expect(201)?;
        let info = &answer["status"]["userInfo"];
        ensure!(info["username"] == stage.user(account), "{info}");
        let groups = info["groups"].as_array().context("groups")?;
        for group in ["system:serviceaccounts", "system:serviceaccounts:identity-who", "system:authenticated"] {
            ensure!(groups.contains(&json!(group)), "{group} in {info}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn headers_of_the_guest_do_not_change_who_it_is() -> Result<()> {
    let stage = Stage::new("identity-headers").await?;
    let headers = [
        ("content-type", "application/json"),
        ("impersonate-user", "system:admin"),
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "0"),
        ("x-remote-user", "system:admin"),
        ("authorization", "Bearer nonsense"),
    ];
    let answer = stage.guest("a")?.send_as("POST", WHO, &review(), &headers).await?.expect(201)?;
    ensure!(answer["status"]["userInfo"]["username"] == stage.user("a"), "{answer}");
    ensure!(!answer.to_string().contains("system:masters"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn identities_are_verified_with_the_server() -> Result<()> {
    let stage = Stage::new("identity-verified").await?;
    ensure!(stage.gateway.verify_identity(&stage.user("a")).await == Ok(()));
    let other = stage.gateway.verify_identity(&stage.user("not-listed")).await;
    ensure!(matches!(other, Err(IdentityError::Forbidden { .. })), "{other:?}");
    Ok(())
}

// An impersonation in the kubeconfig would be appended beside the guest's, and the server takes the first.
#[tokio::test]
async fn an_impersonation_in_the_kubeconfig_does_not_reach_guests() -> Result<()> {
    let stage = Stage::new("identity-kubeconfig").await?;
    let mut config = stage.host.clone();
    config.auth_info.impersonate = Some(stage.user("b"));
    config.headers.push(("impersonate-user".parse()?, stage.user("b").parse()?));
    let host = client::from_config(config)?;
    let gateway = Gateway::new(
        host.clone(),
        std::sync::Arc::new(stage.informers.clone()),
        Rights::new(host),
        GatewayMetrics::default(),
        Options::new(tokio::runtime::Handle::current()),
    );
    ensure!(gateway.verify_identity(&stage.user("a")).await == Ok(()));
    let guest = Guest(gateway.guest(stage.access("a", vec![everything()])?)?);
    let answer = guest.send("POST", WHO, &review()).await?.expect(201)?;
    ensure!(answer["status"]["userInfo"]["username"] == stage.user("a"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn what_rbac_denies_is_handed_on() -> Result<()> {
    let stage = Stage::new("identity-rbac").await?;
    let guest = stage.guest("a")?;
    let denied = guest.get(&stage.path("configmaps/x")).await?.expect(403)?;
    let message = denied["message"].as_str().context("a message")?;
    ensure!(message.contains(&stage.user("a")) && message.contains("configmaps"), "{message}");
    ensure!(denied["kind"] == "Status" && denied["reason"] == "Forbidden", "{denied}");

    stage.grant("a", &json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"] }])).await?;
    harness::eventually("the grant counts", async || {
        guest.send("POST", &stage.path("configmaps"), &config_map("x", "1")).await?.expect(201)
    })
    .await?;
    guest.get(&stage.path("configmaps/x")).await?.expect(200)?;
    guest.send("DELETE", &stage.path("configmaps/x"), &json!({})).await?.expect(403)?;
    // RBAC may allow what the host's rules do not.
    let narrow = stage.guest_with("a", Vec::new())?;
    let denied = narrow.get(&stage.path("configmaps/x")).await?.expect(403)?;
    ensure!(
        denied["message"].as_str().context("a message")?.contains("guest `a` may not `get` `configmaps`"),
        "{denied}"
    );
    Ok(())
}
