//! The side container `ow-conf`: `POST :8081/conf/<name>` with `{"value": ...}` writes `/conf/<name>`, which the action
//! reads. `CONF_DIRECTORY`, `CONF_INITIAL` and `CONF_PORT` set directory, first content and port.

mod files;
mod server;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use files::Files;

/// Where the original listened.
const PORT: u16 = 8081;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str, default: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| default.into()));
    let files = Files::new(variable("CONF_DIRECTORY", "/conf"));
    files.copy_from(&variable("CONF_INITIAL", "/conf-initial")).context("the first configuration cannot be copied")?;
    let port = match std::env::var("CONF_PORT") {
        Ok(text) => text.parse().with_context(|| format!("`CONF_PORT` is `{text}`, which is not a port"))?,
        Err(_) => PORT,
    };
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("port {port} cannot be listened on"))?;
    axum::serve(listener, server::router(files)).await.context("the server ended")
}
