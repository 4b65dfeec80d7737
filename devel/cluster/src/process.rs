//! Child processes that cannot outlive us.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

/// How often a child is asked whether it has ended.
const EXIT_POLL: Duration = Duration::from_millis(10);
/// How much of the end of a log file an error shows.
const LOG_TAIL_LINES: usize = 15;

/// A child process could not be run. None of these is worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is missing or not executable, or the machine is out of processes.
    #[error("cannot start `{program}`: {source}; check that the file exists and can be executed")]
    Spawn {
        /// What was to be started.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log file cannot be written.
    #[error("cannot create the log file `{path}`: {source}; check that the directory exists and can be written")]
    Log {
        /// The log file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A child process whose output goes to a log file. It is killed when this value is dropped or when our process ends
/// for whatever reason.
#[derive(Debug)]
pub struct Component {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts `program`; its standard output and error are appended to `log`.
    pub fn start(name: &'static str, program: &Path, arguments: &[String], log: &Path) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::start_command(name, command, log)
    }

    /// As [`start`](Self::start), for a command that was prepared with an environment or a working directory.
    pub fn start_command(name: &'static str, mut command: Command, log: &Path) -> Result<Self, Error> {
        let log_error = |source| Error::Log { path: log.to_owned(), source };
        let output = File::options().create(true).append(true).open(log).map_err(log_error)?;
        command.stdin(Stdio::null()).stdout(output.try_clone().map_err(log_error)?).stderr(output);
        // A group of its own: Ctrl-C in a terminal goes to us first, and we end our children in the right order.
        command.process_group(0);
        Ok(Self { name, child: spawn(command)?, log: log.to_owned() })
    }

    /// The name that was given at the start.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log file.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(LOG_TAIL_LINES);
        lines.into_iter().skip(first).collect::<Vec<_>>().join("\n")
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGTERM. An ended process is left alone.
    pub fn terminate(&mut self) {
        if self.exit_status().is_none() {
            // It may end between the two calls, but it is not reaped in between, so the id still is its own.
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Sends SIGKILL and reaps.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the process has ended, at most `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(EXIT_POLL).await;
        }
    }

    /// Asks the process to end, and kills it when it has not after `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        self.terminate();
        if self.wait(grace).await.is_none() {
            self.kill();
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.kill();
    }
}

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts `command` as a process that the kernel kills when our process ends, even by SIGKILL.
pub fn spawn(command: Command) -> Result<Child, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reply, answer) = mpsc::sync_channel(1);
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner()
        .and_then(|jobs| {
            jobs.send((command, reply)).map_err(|_| io::Error::other("the thread that starts processes is gone"))
        })
        .and_then(|()| answer.recv().map_err(gone)?)
        .map_err(|source| Error::Spawn { program, source })
}

/// The kernel ties PR_SET_PDEATHSIG to the *thread* that forked: a child of a pooled thread would die when the pool
/// shrinks. So one thread, which lives as long as the process, starts all children.
fn spawner() -> io::Result<&'static mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<Result<mpsc::Sender<Job>, io::ErrorKind>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (sender, jobs) = mpsc::channel::<Job>();
            let run = move || {
                for (mut command, reply) in jobs {
                    die_with_parent(&mut command);
                    let _ = reply.send(command.spawn());
                }
            };
            let thread = thread::Builder::new().name("spawner".to_owned()).spawn(run);
            thread.map(|_| sender).map_err(|error| error.kind())
        })
        .as_ref()
        .map_err(|kind| io::Error::from(*kind))
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe functions may run. These are two system calls without
    // allocation or locks; making an
    // `io::Error` of a raw error number or of a kind allocates nothing either.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the call above; then no signal comes any more.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}
