//! The host's admin endpoint.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};

use crate::metrics::Metrics;

/// An HTTP client of one address. kube's client is the one that we have; nothing in this use of it is Kubernetes.
#[derive(Clone)]
pub(crate) struct Admin {
    client: Client,
    pub(crate) address: SocketAddr,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Result<Self> {
        let mut config = Config::new(format!("http://{address}").parse()?);
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config)?, address })
    }

    /// Status and body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let response =
            self.client.send(Request::get(path).body(Body::empty())?).await.with_context(|| format!("GET {path}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.with_context(|| format!("the body of GET {path}"))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.get("/metrics").await?;
        ensure!(status == 200, "`/metrics` answers {status}: {text}");
        Ok(Metrics::parse(&text))
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}
