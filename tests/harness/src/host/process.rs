//! A host over its life: started, looked at, killed, started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};

use super::admin::Admin;
use super::command::{cache_arguments, launched_command};
use super::memory::{Memory, cpu_of, memory_of};
use super::rbac::Rights;
use crate::config::{Guest, documents};
use crate::logs::{Log, LogLine};
use crate::metrics::Metrics;
use crate::wait::eventually;

/// What does not change over a host's life.
pub(crate) struct Setup {
    pub(crate) client: Client,
    pub(crate) user: String,
    pub(crate) namespace: String,
    pub(crate) config: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Before the program's own path.
    pub(crate) launcher: Vec<String>,
    /// Accounts of guests, and namespaces where they get no role.
    pub(crate) denied: Vec<(String, String)>,
    pub(crate) rbac_arguments: Vec<String>,
}

/// A host. Killed when dropped.
pub struct Host {
    setup: Setup,
    rights: Rights,
    log: Log,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    admin: Option<Admin>,
}

impl Host {
    pub(crate) fn new(setup: Setup, log: Log) -> Self {
        Self { setup, rights: Rights::default(), log, process: None }
    }

    /// Starts the process and waits until its admin endpoint answers.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the host runs already");
        let log = self.log.mark();
        let mut command = launched_command(&self.setup.launcher, &["run"])?;
        command
            .arg(&self.setup.config)
            .args(["--admin-listen", "127.0.0.1:0", "--log-format", "json", "--host-namespace", &self.setup.namespace])
            .args(cache_arguments(&self.setup.cache))
            .args(&self.setup.arguments)
            .env("KUBECONFIG", &self.setup.kubeconfig)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = wasm_operator_devel::spawn(command)?;
        log.read_from(child.stdout.take().context("no stdout")?);
        log.read_from(child.stderr.take().context("no stderr")?);
        self.process = Some(Process { child, admin: None });
        let listens = tokio::select! {
            line = log.wait("the admin endpoint listens", |line| admin_address(line).is_some()) => line?,
            status = self.wait() => bail!("the host ended while starting: {}", status?),
        };
        let address = admin_address(&listens).context("no address")?;
        self.process.as_mut().context("no process")?.admin = Some(Admin::new(address));
        Ok(())
    }

    /// Starts the process without waiting for anything, for hosts that are expected to end by themselves.
    pub async fn exit_status_of_start(&mut self) -> Result<ExitStatus> {
        match self.start().await {
            Ok(()) => bail!("the host started"),
            Err(_) => self.wait().await,
        }
    }

    /// Everything that it wrote.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The user that the API server knows it as.
    pub fn user(&self) -> &str {
        &self.setup.user
    }

    /// The user that the API server knows a guest as.
    pub fn user_of(&self, guest: &str) -> String {
        format!("system:serviceaccount:{}:guest-{guest}", self.setup.namespace)
    }

    /// The token by which the API server knows it.
    pub fn token(&self) -> Result<String> {
        let kubeconfig: serde_json::Value = serde_json::from_slice(&std::fs::read(&self.setup.kubeconfig)?)?;
        let token = kubeconfig.pointer("/users/0/user/token").and_then(|token| token.as_str());
        Ok(token.context("a kubeconfig without a token")?.to_owned())
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.setup.namespace
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.setup.config
    }

    /// Where it keeps compiled components.
    pub fn cache(&self) -> &Path {
        &self.setup.cache
    }

    /// The running process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the host does not run")?.child.id())
    }

    /// Replaces the configuration, after giving the rights that it needs.
    pub async fn configure(&mut self, guests: &[Guest]) -> Result<()> {
        self.configure_text(&documents(guests)?).await
    }

    /// [`configure`](Self::configure) with the text of the file.
    pub async fn configure_text(&mut self, text: &str) -> Result<()> {
        let next = self.setup.config.with_extension("next.yaml");
        std::fs::write(&next, text)?;
        let Setup { cache, namespace, rbac_arguments, .. } = &self.setup;
        let rights = Rights::of(&next, cache, namespace, rbac_arguments)?;
        self.rights =
            self.setup.denied.iter().fold(rights, |rights, (account, namespace)| rights.denying(account, namespace));
        self.rights.apply(&self.setup.client).await?;
        // In one step, as whoever writes configurations by program does it.
        std::fs::rename(&next, &self.setup.config)?;
        Ok(())
    }

    /// Writes the configuration in place, as an editor may do, and changes no rights.
    pub fn write_config(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(&self.setup.config, text)?)
    }

    /// Takes all rights from the host and its guests.
    pub async fn revoke_rights(&self) -> Result<()> {
        self.rights.revoke(&self.setup.client).await
    }

    /// Gives them back.
    pub async fn restore_rights(&self) -> Result<()> {
        self.rights.apply(&self.setup.client).await
    }

    /// SIGKILL, as the kernel does it to a host that took too much memory.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the host does not run")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// SIGTERM. Returns at once: [`wait`](Self::wait) for the end.
    pub fn terminate(&self) -> Result<()> {
        let process = self.process.as_ref().context("the host does not run")?;
        Ok(kill_process(Pid::from_child(&process.child), Signal::TERM)?)
    }

    /// Waits until the process has ended.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("the host does not run")?;
        let status = eventually("the host ends", async || process.child.try_wait()?.context("it runs")).await?;
        self.process = None;
        Ok(status)
    }

    /// Fails if the process has ended by itself.
    pub fn assert_alive(&mut self) -> Result<()> {
        let status = self.process.as_mut().context("the host does not run")?.child.try_wait()?;
        status.map_or(Ok(()), |status| bail!("the host ended: {status}"))
    }

    /// Where the admin endpoint listens.
    pub fn admin_address(&self) -> Result<String> {
        Ok(self.admin()?.address.to_string())
    }

    /// Status and body of a path of the admin endpoint.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        self.admin()?.get(path).await
    }

    /// One scrape.
    pub async fn metrics(&self) -> Result<Metrics> {
        self.admin()?.metrics().await
    }

    /// Waits until `/readyz` says yes.
    pub async fn until_ready(&self) -> Result<()> {
        eventually("the host is ready", async || {
            let (status, body) = self.get("/readyz").await?;
            ensure!(status == 200, "`/readyz` answers {status}: {body}");
            Ok(())
        })
        .await
    }

    /// The state of a guest, as the metrics name it.
    pub async fn state_of(&self, guest: &str) -> Result<String> {
        state_of(&self.metrics().await?, guest)
    }

    /// Waits until a guest is in one of these states.
    pub async fn until_state(&self, guest: &str, wanted: &[&str]) -> Result<String> {
        eventually(&format!("guest `{guest}` is {}", wanted.join(" or ")), async || {
            let state = self.state_of(guest).await?;
            ensure!(wanted.contains(&state.as_str()), "it is {state}");
            Ok(state)
        })
        .await
    }

    /// Waits until a guest has no instance and nothing to do.
    pub async fn until_asleep(&self, guest: &str) -> Result<String> {
        self.until_state(guest, ASLEEP).await
    }

    /// Waits until these guests are all asleep.
    pub async fn until_all_asleep(&self, guests: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let guests: Vec<String> = guests.into_iter().map(|guest| guest.as_ref().to_owned()).collect();
        eventually("all guests are asleep", async || {
            let metrics = self.metrics().await?;
            for guest in &guests {
                let state = state_of(&metrics, guest)?;
                ensure!(ASLEEP.contains(&state.as_str()), "`{guest}` is {state}");
            }
            Ok(())
        })
        .await
    }

    /// How often a guest was woken so far.
    pub async fn wakes_of(&self, guest: &str) -> Result<f64> {
        Ok(self.metrics().await?.sum("wasm_operator_guest_wakes_total", &[("guest", guest)]))
    }

    /// What it uses.
    pub fn memory(&self) -> Result<Memory> {
        memory_of(self.pid()?)
    }

    /// CPU time that it has used.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.pid()?)
    }

    fn admin(&self) -> Result<&Admin> {
        self.process.as_ref().and_then(|process| process.admin.as_ref()).context("the host does not run")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ASLEEP: &[&str] = &["dormant", "cold", "hibernated"];

fn state_of(metrics: &Metrics, guest: &str) -> Result<String> {
    let mut all = metrics
        .labels("wasm_operator_guest_state")
        .filter(|labels| labels.get("guest").is_some_and(|name| name == guest));
    let current = all.find_map(|labels| {
        let state = labels.get("state")?;
        (metrics.get("wasm_operator_guest_state", &[("guest", guest), ("state", state)])? == 1.0).then(|| state.clone())
    });
    current.with_context(|| format!("no state of guest `{guest}` in the metrics"))
}

fn admin_address(line: &LogLine) -> Option<SocketAddr> {
    line.message().contains("admin").then(|| line.field("address")?.parse().ok())?
}
