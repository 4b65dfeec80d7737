//! The binary's commands other than `run`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code, -1 if a signal ended it.
    pub code: i32,
    /// What it wrote for programs.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
}

/// The host binary with these arguments and an environment that does not know any cluster.
pub fn command(arguments: &[&str]) -> Result<Command> {
    launched_command(&[], arguments)
}

/// [`command`], started by a command that executes what follows it.
pub(crate) fn launched_command(launcher: &[String], arguments: &[&str]) -> Result<Command> {
    let program = crate::program()?.into_os_string();
    let mut words = launcher.iter().map(Into::into).chain([program]);
    let mut command = Command::new(words.next().context("a command without a program")?);
    command.args(words).args(arguments).env_clear().stdin(Stdio::null());
    Ok(command)
}

/// The arguments that name the directory of compiled components. What is in there stays for the next host and the next run, however many
/// different components a benchmark has.
pub fn cache_arguments(directory: &Path) -> [OsString; 4] {
    ["--cache-budget".into(), "17179869184".into(), "--cache-dir".into(), directory.into()]
}

/// Runs a command to its end.
pub fn output(mut command: Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

impl Output {
    /// What it wrote to stdout, if it succeeded.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}; stdout: {}; stderr: {}", self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }
}
