//! The host as a child process, seen through its admin endpoint.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Request;
use kube::Client;
use tokio::time::Instant;
use wasm_operator_devel::{Component, free_port, http_client};

use super::cluster::HOST_NAMESPACE;
use super::config::Config;
use super::metrics::{self, GuestState};

pub(super) const PROGRAM: &str = "target/x86_64-unknown-linux-musl/release/wasm-operator";
/// Logs and compiled components. Ignored by git.
const DIRECTORY: &str = ".devel/demo";

/// Includes compiling the guests the first time, on a machine that may be busy.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// The guests of the demos fall asleep after a second.
const SLEEP_PATIENCE: Duration = Duration::from_secs(60);
/// Running reconciles may finish.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Host {
    process: Component,
    admin: Client,
    // The host watches its configuration, so the file stays as long as it runs.
    _config: Config,
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: u64,
    /// The part that is not file-backed, and so cannot be dropped under pressure.
    pub(super) anonymous: u64,
}

/// What `wasm-operator rbac` prints: the objects that give guests and host their rights.
pub(super) async fn rbac(config: &Path, kubeconfig: &Path) -> Result<String> {
    let mut command = tokio::process::Command::from(program(kubeconfig));
    // The host may watch cluster-wide, so one watch serves the whole ring.
    command.args(["rbac", "--cluster-wide-watches", "--host-namespace", HOST_NAMESPACE]).arg(config);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot start `{PROGRAM}`"))?;
    ensure!(
        output.status.success(),
        "`wasm-operator rbac {}` failed:\n{}",
        config.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("`wasm-operator rbac` printed something else than text")
}

fn program(kubeconfig: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    // Backtraces would make a guest's end ten times as dear.
    command.env("KUBECONFIG", kubeconfig).env("RUST_LIB_BACKTRACE", "0");
    command
}

impl Host {
    pub(super) async fn start(config: Config, kubeconfig: &Path) -> Result<Self> {
        let directory = PathBuf::from(DIRECTORY);
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make the directory `{DIRECTORY}`"))?;
        let log = directory.join("wasm-operator.log");
        let _ = std::fs::remove_file(&log);
        // Each demo grants anew what the guests ask for, with the roles that it has just applied: a guest under development
        // asks for something else every time.
        let cache = directory.join("cache");
        let _ = std::fs::remove_dir_all(cache.join("approvals"));
        let address = format!("127.0.0.1:{}", free_port().context("no free port")?);
        let mut command = program(kubeconfig);
        command
            .args(["run", "--admin-listen", &address, "--host-namespace", HOST_NAMESPACE, "--cache-dir"])
            .arg(cache)
            .arg(config.path());
        let process = Component::start_command("wasm-operator", command, &log)?;
        let mut host = Self { process, admin: http_client(&format!("http://{address}"))?, _config: config };
        host.wait_until_ready().await?;
        Ok(host)
    }

    pub(super) fn log(&self) -> &Path {
        self.process.log()
    }

    async fn get(&self, path: &str) -> Result<String> {
        Ok(self.admin.request_text(Request::get(path).body(Vec::new())?).await?)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let Err(error) = self.get("/readyz").await else { return Ok(()) };
            self.check(deadline, || format!("it is not ready: {error}"))?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// The states of all guests as they are now.
    pub(super) async fn states(&self) -> Result<Vec<GuestState>> {
        Ok(metrics::guest_states(&self.get("/metrics").await.context("cannot read the host's metrics")?))
    }

    /// How often a guest was woken so far.
    pub(super) async fn wakes_of(&self, guest: &str) -> Result<u64> {
        Ok(metrics::wakes(&self.get("/metrics").await.context("cannot read the host's metrics")?, guest))
    }

    /// Returns the states once all `guests` sleep.
    pub(super) async fn wait_until_asleep(&mut self, guests: usize) -> Result<Vec<GuestState>> {
        let deadline = Instant::now() + SLEEP_PATIENCE;
        loop {
            let states = metrics::guest_states(&self.get("/metrics").await.context("cannot read the host's metrics")?);
            let awake: Vec<&str> =
                states.iter().filter(|state| !state.is_asleep()).map(|state| state.guest.as_str()).collect();
            if awake.is_empty() && states.len() >= guests {
                return Ok(states);
            }
            self.check(deadline, || {
                format!("{} of {guests} guests are known, of which not asleep: {}", states.len(), awake.join(", "))
            })?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Fails when the host has ended or the deadline has passed.
    fn check(&mut self, deadline: Instant, reason: impl Fn() -> String) -> Result<()> {
        let problem = match self.process.exit_status() {
            Some(status) => format!("it ended ({status})"),
            None if Instant::now() >= deadline => reason(),
            None => return Ok(()),
        };
        bail!("wasm-operator: {problem}. The end of `{}`:\n{}", self.log().display(), self.process.log_tail())
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kibibytes =
                line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
            kibibytes.map(|number| number * 1024).with_context(|| format!("`{path}` has no `{field}`"))
        };
        Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
    }

    /// SIGTERM, and time to drain.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.process.terminate();
        match self.process.wait(DRAIN_PATIENCE).await {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                bail!("wasm-operator did not stop cleanly ({status}). The end of its log:\n{}", self.process.log_tail())
            }
            None => bail!("wasm-operator still runs {} s after SIGTERM; it is killed", DRAIN_PATIENCE.as_secs()),
        }
    }
}
