//! Clients of the control plane's servers.

use std::path::Path;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// A server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is missing or malformed.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The server refused or cannot be reached.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// A URL of ours is malformed.
    #[error(transparent)]
    Url(#[from] http::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// Simulated nodes are not ready.
    #[error("{ready} of {wanted} nodes are ready")]
    Nodes {
        /// How many are.
        ready: usize,
        /// How many there are.
        wanted: usize,
    },
    /// etcd's answer lacks what is asked for.
    #[error("etcd answered without a revision: {0}")]
    Revision(Value),
}

/// A client that uses the kubeconfig at `path`, and that reports errors instead of retrying: those who start and stop
/// servers want to see them.
pub async fn kubernetes_client(path: &Path) -> Result<Client, Error> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// A client of any server that speaks plain HTTP, such as etcd's JSON gateway or the host's admin endpoint. kube's
/// client is an HTTP client like another; nothing in this use of it is Kubernetes.
pub fn http_client(url: &str) -> Result<Client, Error> {
    let mut config = Config::new(url.parse().map_err(http::Error::from)?);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// etcd through its JSON gateway.
pub(crate) struct Etcd(Client);

impl Etcd {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        Ok(Self(http_client(url)?))
    }

    pub(crate) async fn healthy(&self) -> Result<(), Error> {
        self.0.request_text(Request::get("/health").body(Vec::new())?).await?;
        Ok(())
    }

    /// Forgets all history before the current revision, and returns that.
    pub(crate) async fn compact(&self) -> Result<u64, Error> {
        // Any range request tells the revision; this one asks for the key of one zero byte.
        let range: Value = self.post("/v3/kv/range", &json!({ "key": "AA==" })).await?;
        let revision = range.pointer("/header/revision").and_then(Value::as_str).and_then(|text| text.parse().ok());
        let revision: u64 = revision.ok_or(Error::Revision(range))?;
        self.post("/v3/kv/compaction", &json!({ "revision": revision.to_string(), "physical": true })).await?;
        Ok(revision)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let request =
            Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes())?;
        Ok(self.0.request(request).await?)
    }
}
