//! `run` and `up`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use wasm_operator_devel::{ControlPlane, Options, Progress, STATE_VARIABLE, spawn};

use crate::signals::{INTERRUPTED, Interrupts};

/// How often a running command is asked whether it has ended.
const EXIT_POLL: Duration = Duration::from_millis(20);
/// How long an interrupted command may take to end.
const COMMAND_GRACE: Duration = Duration::from_secs(20);

/// Runs `command` beside a control plane.
pub(crate) async fn command(options: Options, command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command given")?;
    let mut interrupts = Interrupts::new()?;
    let Some(control_plane) = start(options, &mut interrupts).await? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("KUBECONFIG", control_plane.kubeconfig())
        .env(STATE_VARIABLE, write_state(&control_plane)?);
    // In our process group, so that it may read from the terminal.
    let mut child = spawn(command)?;
    let code = tokio::select! {
        status = wait(&mut child) => exit_code(status?),
        () = interrupts.next() => {
            // After Ctrl-C it has had its own signal; another one does no harm.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            if tokio::time::timeout(COMMAND_GRACE, wait(&mut child)).await.is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
            ExitCode::from(INTERRUPTED)
        }
    };
    control_plane.stop().await;
    Ok(code)
}

/// Runs a control plane until Ctrl-C.
pub(crate) async fn until_interrupted(options: Options) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let Some(control_plane) = start(options, &mut interrupts).await? else { return Ok(ExitCode::from(INTERRUPTED)) };
    print(&format!("export KUBECONFIG={}", control_plane.kubeconfig().display()))?;
    print(&format!("export {STATE_VARIABLE}={}", write_state(&control_plane)?.display()))?;
    for (user, kubeconfig) in control_plane.state().kubeconfigs {
        print(&format!("# {user}: {}", kubeconfig.display()))?;
    }
    Progress::default().line("The control plane runs until Ctrl-C.");
    interrupts.next().await;
    control_plane.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// `None` when interrupted meanwhile; what had been started is ended then.
pub(crate) async fn start(options: Options, interrupts: &mut Interrupts) -> Result<Option<ControlPlane>> {
    let starting = async {
        // Built first, so that the time of the build is not taken for that of the start.
        options.build(Progress::default()).await?;
        Progress::default().during("starting the control plane", ControlPlane::start(options)).await
    };
    tokio::select! {
        started = starting => Ok(Some(started?)),
        () = interrupts.next() => Ok(None),
    }
}

fn write_state(control_plane: &ControlPlane) -> Result<PathBuf> {
    let path = control_plane.directory().join("state.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&control_plane.state())?)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

async fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(EXIT_POLL).await;
    }
}

/// As a shell reports it.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// One line for whoever reads standard output.
pub(crate) fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}
