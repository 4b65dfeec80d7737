//! `why`: asks a running host why a guest sleeps or does not.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::block_on;
use super::output::print;

/// An explanation has some hundred bytes.
const MAX_ANSWER: usize = 64 << 10;
/// The host answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Why {
    /// The guest's name
    guest: String,
    /// The admin endpoint of the running host
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    admin: SocketAddr,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

impl Why {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { guest, admin, output } = self;
        // The name becomes a path segment.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        ensure!(!guest.is_empty() && guest.bytes().all(is_name), "`{guest}` is not the name of a guest");
        let query = if output == Output::Json { "?output=json" } else { "" };
        let answer = block_on(async {
            let path = format!("/guests/{guest}/why{query}");
            let answer = timeout(PATIENCE, get(admin, &path)).await;
            answer.with_context(|| format!("the host at `{admin}` does not answer"))?
        })?;
        print(&answer)?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(admin).await.with_context(|| {
        format!("no host answers at `{admin}`; name its admin endpoint with `--admin` (`run --admin-listen`)")
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer of `{admin}` cannot be read: {error}"))?;
    connection.abort();
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match status {
        http::StatusCode::OK => Ok(text),
        http::StatusCode::NOT_FOUND => bail!("{}", text.trim()),
        status => bail!("`{admin}` answers {status}: {}", text.trim()),
    }
}
