//! The stand-in for OpenWhisk as a child process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::time::Instant;
use wasm_operator_devel::{Component, free_port};

pub(super) const PROGRAM: &str = "target/x86_64-unknown-linux-musl/release/openwhisk";
/// What the Secret of the target holds.
pub(super) const CREDENTIALS: &str = "demo:not-a-secret";

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct OpenWhisk {
    process: Component,
    url: String,
}

impl OpenWhisk {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port().context("no free port")?);
        let arguments = [
            "--listen",
            &address,
            "--namespace",
            &format!("guest={CREDENTIALS}"),
            "--action",
            "/guest/demo/video=example.org/video:1",
            "--trigger",
            "/guest/ended",
        ];
        let arguments = arguments.map(str::to_owned);
        let process = Component::start("openwhisk", Path::new(PROGRAM), &arguments, &directory.join("openwhisk.log"))?;
        let mut openwhisk = Self { process, url: format!("http://{address}") };
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(&address).await.is_err() {
            if openwhisk.process.exit_status().is_some() || Instant::now() >= deadline {
                bail!("the stand-in for OpenWhisk does not start:\n{}", openwhisk.process.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(openwhisk)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A line for each request that it has answered.
    pub(super) fn requests(&self) -> Result<String> {
        let log = std::fs::read_to_string(self.process.log()).context("the log of the stand-in for OpenWhisk")?;
        // The first line is its URL.
        Ok(log.lines().skip(1).map(|line| format!("  {line}\n")).collect())
    }

    pub(super) async fn stop(mut self) {
        self.process.stop(STOP_PATIENCE).await;
    }
}
