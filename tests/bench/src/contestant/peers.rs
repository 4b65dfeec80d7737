//! The peers as processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Result, ensure, logs_directory, ring, target, write_kubeconfig};
use wasm_operator_devel::Component;

use super::rights;
use crate::stage::{Course, Stage};
use crate::variant::{Form, Kind};

/// What is to be started.
pub(crate) struct Peers {
    commands: Vec<Command>,
    log: PathBuf,
}

impl Peers {
    pub(super) fn start(self) -> Result<Vec<Component>> {
        let start = |command| Ok(Component::start_command("peer", command, &self.log)?);
        self.commands.into_iter().map(start).collect()
    }
}

/// Gives the processes ServiceAccounts with rights, as a deployed controller has them, and writes a kubeconfig for each.
pub(super) async fn prepare(stage: &Stage, course: &Course, kind: Kind, launcher: Vec<String>) -> Result<Peers> {
    let program = program(kind)?;
    let directory = stage.space().directory().join("peers");
    std::fs::create_dir_all(&directory)?;
    let mut commands = Vec::new();
    if let Kind::Go(Form::Each) | Kind::KubeRs(Form::Each) | Kind::NativeProgram = kind {
        for (index, (from, to)) in course.pairs().enumerate() {
            let token = rights::in_namespaces(stage, &format!("peer-{index}"), &[from, to]).await?;
            let kubeconfig = kubeconfig(stage, &directory, index, &token)?;
            let mut command = launched(&launcher, &program, &kubeconfig);
            command.env("IN_NAMESPACE", from).env("OUT_NAMESPACE", to);
            command.envs(ring::ballast(course.heap_bytes));
            commands.push(command);
        }
    } else {
        let token = rights::everywhere(stage, "peer-all").await?;
        let kubeconfig = kubeconfig(stage, &directory, "all", &token)?;
        let mut command = launched(&launcher, &program, &kubeconfig);
        command.args(["--all", &course.controllers.to_string(), "--prefix", &course.prefix]);
        if kind == Kind::Floor {
            command.arg("--floor");
        }
        commands.push(command);
    }
    Ok(Peers { commands, log: logs_directory()?.join("peers.log") })
}

fn program(kind: Kind) -> Result<PathBuf> {
    let target = target()?;
    let path = match kind {
        Kind::Go(_) => target.join("bench-peers/ring-peer-go"),
        Kind::NativeProgram => target.join("x86_64-unknown-linux-musl/release/ring-operator"),
        _ => target.join("x86_64-unknown-linux-musl/release/ring-peer"),
    };
    ensure!(path.is_file(), "`{}` does not exist; `devel/bench` builds it", path.display());
    Ok(path)
}

fn kubeconfig(stage: &Stage, directory: &Path, name: impl std::fmt::Display, token: &str) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.kubeconfig"));
    let cluster = stage.space().cluster();
    write_kubeconfig(&path, cluster.kubeconfig(), &format!("https://{}", cluster.server()?), token)?;
    Ok(path)
}

/// The environment has nothing else that could set a knob, such as `GOMAXPROCS` or `TOKIO_WORKER_THREADS`.
fn launched(launcher: &[String], program: &Path, kubeconfig: &Path) -> Command {
    let words: Vec<_> = launcher.iter().map(Into::into).chain([program.as_os_str().to_owned()]).collect();
    let (first, rest) = words.split_first().map_or((program.as_os_str(), &[][..]), |(first, rest)| (first, rest));
    let mut command = Command::new(first);
    command.args(rest).env_clear().env("KUBECONFIG", kubeconfig);
    command
}
