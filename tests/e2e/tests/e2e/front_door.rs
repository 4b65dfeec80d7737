//! Guests that serve HTTP: who may call, what reaches them, and what hostile callers and guests cannot do.

mod access;
mod listener;
mod load;
mod tls;

use std::net::SocketAddr;

use harness::programs;
use harness::{Guest, Host, HostBuilder, HttpClient, Result, Space, audience_token, eventually, test};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

pub(crate) use load::{hostile_server, server};

/// What tokens for the front door are meant for.
pub(crate) const AUDIENCE: &str = "wasm-operator.dev";

/// A host with a front door, and a caller who may call every guest.
struct Stage<'a> {
    space: &'a Space,
    namespace: String,
    host: Host,
    address: SocketAddr,
    client: HttpClient,
}

/// A guest that serves HTTP.
fn serving(name: &str, program: &str, namespace: &str) -> Guest {
    programs::guest(name, program, &[namespace]).idle_after("50ms")
}

/// Where something listens, as the host's log says.
async fn listens(host: &Host, message: &str) -> Result<SocketAddr> {
    let line = host.log().wait(message, |line| line.message().contains(message)).await?;
    Ok(line.field("address").unwrap_or_default().parse()?)
}

/// Starts a host with a front door; returns where that listens.
pub(crate) async fn open(builder: HostBuilder<'_>) -> Result<(Host, SocketAddr)> {
    let host =
        builder.rbac_argument("--front-door").argument("--front-door-address").argument("127.0.0.1:0").start().await?;
    let address = listens(&host, "the front door listens").await?;
    host.until_ready().await?;
    Ok((host, address))
}

impl<'a> Stage<'a> {
    /// With these guests, over plain HTTP.
    async fn new(space: &'a Space, guests: impl IntoIterator<Item = Guest>) -> Result<Self> {
        Self::start(space, space.host().guests(guests).argument("--front-door-plain")).await
    }

    async fn start(space: &'a Space, builder: HostBuilder<'_>) -> Result<Self> {
        let namespace = space.namespace("a").await?;
        let (host, address) = open(builder).await?;
        let stage = Self { space, host, address, client: HttpClient::plain(address), namespace };
        let token = stage.token("caller").await?;
        stage.grant("caller", &["get", "create", "update", "patch", "delete"], &[]).await?;
        Ok(Self { client: stage.client.clone().bearer(&token), ..stage })
    }

    /// A token of the ServiceAccount of this name, for the front door.
    async fn token(&self, account: &str) -> Result<String> {
        audience_token(&self.space.client(), &self.namespace, account, AUDIENCE).await
    }

    /// The user that the API server knows this ServiceAccount as.
    fn user(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace)
    }

    /// Lets a ServiceAccount call these guests; none named: all.
    async fn grant(&self, account: &str, verbs: &[&str], guests: &[&str]) -> Result<()> {
        let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": self.namespace });
        grant(self.space, &format!("{}-{account}", self.namespace), subject, verbs, guests).await
    }

    async fn wakes_by_request(&self, guest: &str) -> Result<f64> {
        let labels = [("guest", guest), ("reason", "request")];
        Ok(self.host.metrics().await?.sum("wasm_operator_guest_wakes_total", &labels))
    }

    /// Sends until the answer has this code: rights take a moment until they are known everywhere.
    async fn until_code(&self, path: &str, code: u16) -> Result<()> {
        eventually(&format!("{path} answers {code}"), async || {
            let answer = self.client.get(path).await?;
            harness::ensure!(answer.status == code, "{}: {}", answer.status, answer.text());
            Ok(())
        })
        .await
    }
}

/// As an administrator grants it, with `kubectl create clusterrole ... --resource=guests.wasm-operator.dev/proxy`.
pub(crate) async fn grant(space: &Space, name: &str, subject: Value, verbs: &[&str], guests: &[&str]) -> Result<()> {
    // No names stand for every name.
    let rule = json!({
        "apiGroups": ["wasm-operator.dev"], "resources": ["guests/proxy"], "verbs": verbs, "resourceNames": guests,
    });
    let role: ClusterRole = serde_json::from_value(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": [rule],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [subject],
    }))?;
    let force = PatchParams::apply("e2e").force();
    Api::<ClusterRole>::all(space.client()).patch(name, &force, &Patch::Apply(&role)).await?;
    Api::<ClusterRoleBinding>::all(space.client()).patch(name, &force, &Patch::Apply(&binding)).await?;
    Ok(())
}

#[test]
fn a_request_wakes_a_sleeping_guest_which_answers_and_sleeps_again() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.host.until_asleep("server").await?;
        let before = stage.wakes_by_request("server").await?;
        let answer = stage.client.send("POST", "/guests/server/a/b?c=d", &[], b"hello".to_vec()).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = answer.json()?;
        assert_eq!(
            (&seen["method"], &seen["path"], &seen["body"]),
            (&json!("POST"), &json!("/a/b?c=d"), &json!("hello"))
        );
        assert_eq!(seen["caller"]["user"], json!(stage.user("caller")));
        assert!(seen["caller"]["groups"].as_array().unwrap().contains(&json!("system:authenticated")), "{seen}");
        assert!(!seen["caller"]["uid"].as_str().unwrap().is_empty());
        stage.host.until_asleep("server").await?;
        assert_eq!(stage.wakes_by_request("server").await? - before, 1.0);

        // With the rights of the guest, not of the caller.
        let answer = stage.client.get("/guests/server/config-map?name=missing").await?;
        assert_eq!(answer.text(), "404");
        let answer = stage.client.get("/guests/server/write?name=written").await?;
        assert_eq!(answer.text(), "200");
        let id = answer.header("x-wasm-operator-request-id").to_owned();
        let line = stage
            .host
            .log()
            .wait("the request", |line| line.field("request_id") == Some(&id) && line.message() == "request");
        let line = line.await?;
        assert_eq!((line.field("guest"), line.field("user")), (Some("server"), Some(&*stage.user("caller"))));
        let said = stage.host.log().wait("the guest's line", |line| {
            line.field("request_id") == Some(&id) && line.message() == "serving /write"
        });
        said.await?;
        let metrics = stage.host.metrics().await?;
        let labels = [("guest", "server"), ("code", "200")];
        assert!(metrics.sum("wasm_operator_guest_requests_total", &labels) >= 3.0);
        assert!(metrics.sum("wasm_operator_guest_request_duration_seconds_count", &[("guest", "server")]) >= 3.0);
        Ok(())
    })
}

#[test]
fn suspended_removed_and_replaced_guests_answer_as_they_are() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = || serving("server", "server", &namespace);
        let mut stage = Stage::new(space, [guest()]).await?;
        stage.until_code("/guests/server/", 200).await?;
        stage.host.configure(&[guest().set("suspend", true)]).await?;
        stage.until_code("/guests/server/", 503).await?;
        stage.host.configure(&[guest().env("OTHER", "1")]).await?;
        stage.until_code("/guests/server/", 200).await?;
        stage.host.configure(&[]).await?;
        stage.until_code("/guests/server/", 404).await?;
        Ok(())
    })
}

#[test]
fn a_host_that_stops_finishes_the_requests_that_it_serves() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        let client = stage.client.clone();
        let slow = tokio::spawn(async move { client.get("/guests/server/slow?milliseconds=3000").await });
        stage.host.log().wait("the request", |line| line.message() == "serving /slow").await?;
        stage.host.terminate()?;
        stage.host.log().wait("the end begins", |line| line.message().starts_with("stopping")).await?;
        let late = eventually("nobody is let in any more", async || match stage.client.get("/guests/server/").await {
            Ok(answer) if answer.status != 503 => harness::bail!("{}", answer.status),
            other => Ok(other.is_err()),
        });
        late.await?;
        let answer = slow.await??;
        assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
        assert!(stage.host.wait().await?.success());
        Ok(())
    })
}
