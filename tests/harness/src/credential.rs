//! The host's own identity: a ServiceAccount that has no right but those it is given.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::json;

/// Longer than any test.
const TOKEN_SECONDS: i64 = 7_200;

/// Makes the ServiceAccount and a token for it, for the API server itself.
pub async fn service_account_token(client: &Client, namespace: &str, name: &str) -> Result<String> {
    token(client, namespace, name, Vec::new()).await
}

/// Makes the ServiceAccount and a token for it that is meant for someone else than the API server.
pub async fn audience_token(client: &Client, namespace: &str, name: &str, audience: &str) -> Result<String> {
    token(client, namespace, name, vec![audience.to_owned()]).await
}

async fn token(client: &Client, namespace: &str, name: &str, audiences: Vec<String>) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        created => drop(created?),
    }
    let spec = TokenRequestSpec {
        audiences: Some(audiences).filter(|some| !some.is_empty()),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    answer.status.and_then(|status| status.token).context("a TokenRequest without an answer")
}

/// `host:port` of the API server that a kubeconfig names.
pub(crate) fn server_of(kubeconfig: &Path) -> Result<SocketAddr> {
    let server = cluster_of(kubeconfig)?.server.context("a cluster without a server")?;
    let uri: http::Uri = server.parse()?;
    let authority = uri.authority().context("a server without an authority")?;
    authority.as_str().parse().with_context(|| format!("`{authority}` is not an address and a port"))
}

fn cluster_of(kubeconfig: &Path) -> Result<kube::config::Cluster> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    config.clusters.into_iter().next().and_then(|named| named.cluster).context("a kubeconfig without a cluster")
}

/// Writes a kubeconfig with the cluster of `admin`, reached at `server` (a URL), and a bearer token.
pub fn write_kubeconfig(path: &Path, admin: &Path, server: &str, token: &str) -> Result<()> {
    let mut cluster = cluster_of(admin)?;
    cluster.server = Some(server.to_owned());
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "e2e", "cluster": cluster }],
        "users": [{ "name": "host", "user": { "token": token } }],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "host" } }],
        "current-context": "e2e",
    });
    std::fs::write(path, config.to_string()).with_context(|| format!("cannot write `{}`", path.display()))
}
