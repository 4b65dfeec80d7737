//! The host's admin endpoint.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::http::HttpClient;
use crate::metrics::Metrics;

/// The admin endpoint of one host.
#[derive(Clone)]
pub(crate) struct Admin {
    client: HttpClient,
    pub(crate) address: SocketAddr,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { client: HttpClient::plain(address), address }
    }

    /// Status and body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.client.get(path).await?;
        Ok((answer.status, answer.text()))
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
