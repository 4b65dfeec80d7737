//! Compiling in a child process: Cranelift's memory goes with the child, and so does whatever a hostile component does to
//! it. Its output is native code that the host trusts, so the child gets nothing else to work with.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::process::{Child, Command};

use crate::cache::{hexadecimal, hexadecimal_digest};
use crate::contract::World;
use crate::error::PrepareError;
use crate::format::{self, NotAComponent};

/// What compiling one component may use.
#[derive(Debug, Clone)]
pub struct CompileLimits {
    /// Size of the `.wasm` file. Default 64 MiB: a Python guest with its interpreter has 30.
    pub component_bytes: u64,
    /// Size of the compiled file. Default 512 MiB.
    pub output_bytes: u64,
    /// Address space of the compiler. Default 4 GiB.
    pub memory_bytes: u64,
    /// Wall and CPU time. Default 2 minutes.
    pub time: Duration,
    /// Compilers at once. Default: one per processor, at most 4, since each may take hundreds of megabytes.
    pub at_once: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            component_bytes: 64 << 20,
            output_bytes: 512 << 20,
            memory_bytes: 4 << 30,
            time: Duration::from_secs(120),
            at_once: std::thread::available_parallelism().map_or(1, usize::from).min(4),
        }
    }
}

/// What is kept of the compiler's error text.
const MAX_ERROR_BYTES: u64 = 4 << 10;
/// Lower than the host's: a new guest must not slow the running ones down.
const NICENESS: i32 = 10;
/// Descriptors that the compiler may open.
const MAX_DESCRIPTORS: u64 = 64;

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// A component did not compile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A file cannot be read or written.
    #[error("`{}`: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else. Mended by whoever named it.
    #[error(transparent)]
    NotAComponent(#[from] NotAComponent),
    /// The component is not valid, or uses features that this host does not have. Mended by the guest's author.
    #[error("{0}")]
    Invalid(String),
    /// The file does not have the expected content (any more).
    #[error("its SHA-256 is not `{expected}` (any more)")]
    Changed {
        /// What was expected.
        expected: String,
    },
    /// The compile command cannot be started. Mended by whoever runs the host.
    #[error("cannot start the compiler `{command}`: {source}")]
    Start {
        /// The program.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("the compiler took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// It wrote too much.
    #[error("the compiled code is larger than {0} bytes")]
    OutputTooLarge(u64),
    /// It ended with an error.
    #[error("{0}")]
    Failed(String),
    /// It said that all is well and left something else.
    #[error("the compiler did not write a compiled component")]
    NoComponent,
}

/// Compiles the component in file `wasm` to file `output`, for an [`Engine`](crate::Engine) of the same build. With
/// `digest` given, the component must have this SHA-256. The output appears whole or not at all.
pub fn compile(wasm: &Path, output: &Path, digest: Option<&str>) -> Result<(), CompileError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| CompileError::File { path, source }
    };
    let bytes = fs::read(wasm).map_err(at(wasm))?;
    if let Some(expected) = digest {
        use sha2::Digest;
        if hexadecimal(&sha2::Sha256::digest(&bytes)) != expected {
            return Err(CompileError::Changed { expected: expected.to_owned() });
        }
    }
    let mut file = io::Cursor::new(&bytes);
    format::check(wasm, format::found(&mut file).map_err(at(wasm))?)?;
    let world = World::of(&format::exports(&mut file).map_err(at(wasm))?);
    let invalid = |error: wasmtime::Error| CompileError::Invalid(format!("{error:#}"));
    // The stack's size is not part of the code; any will do.
    let engine = wasmtime::Engine::new(&crate::engine::config(world, 512 << 10)).map_err(invalid)?;
    let compiled = engine.precompile_component(&bytes).map_err(invalid)?;

    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(at(output))?;
    file.write_all(&compiled).map_err(at(output))?;
    file.as_file().sync_all().map_err(at(output))?;
    file.persist(output).map_err(|error| at(output)(error.error))?;
    Ok(())
}

/// Compiles in a child process.
pub(crate) async fn in_child(
    command: &[OsString],
    wasm: &Path,
    output: &Path,
    digest: &str,
    limits: &CompileLimits,
) -> Result<(), CompileError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |source| CompileError::Start { command: program.to_string_lossy().into_owned(), source };
    let wasm = std::path::absolute(wasm).map_err(failed)?;
    let mut child = Command::new(&program);
    child
        .args(command.get(1..).unwrap_or_default())
        .arg(wasm)
        .arg(output)
        .arg(digest)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    confine(&mut child, limits);
    let mut child = child.spawn().map_err(failed)?;
    let Ok(ended) = tokio::time::timeout(limits.time, wait(&mut child)).await else {
        // Killed and reaped: a compiler that is given up must not go on eating a processor.
        let _ = child.kill().await;
        return Err(CompileError::Timeout(limits.time));
    };
    let (status, message) = ended.map_err(failed)?;
    if status.success() { Ok(()) } else { Err(explain(status, message, limits)) }
}

async fn wait(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    use tokio::io::{AsyncReadExt, copy, sink};

    let mut text = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(MAX_ERROR_BYTES).read_to_end(&mut text).await?;
        // A child that goes on writing must not wait for a reader.
        copy(&mut stderr, &mut sink()).await?;
    }
    Ok((child.wait().await?, String::from_utf8_lossy(&text).trim().to_owned()))
}

fn explain(status: ExitStatus, message: String, limits: &CompileLimits) -> CompileError {
    match status.signal() {
        Some(SIGXCPU) => CompileError::Timeout(limits.time),
        Some(SIGXFSZ) => CompileError::OutputTooLarge(limits.output_bytes),
        Some(SIGKILL) => CompileError::Failed("the compiler was killed; the machine may be short of memory".into()),
        Some(signal) => CompileError::Failed(format!(
            "the compiler died of signal {signal} (it may use {} bytes of memory){}{message}",
            limits.memory_bytes,
            if message.is_empty() { "" } else { ": " },
        )),
        None if message.is_empty() => CompileError::Failed(format!("the compiler ended with {status}")),
        None => CompileError::Failed(message.strip_prefix("error: ").unwrap_or(&message).to_owned()),
    }
}

/// Takes from the child what it does not need, between fork and exec.
#[allow(unsafe_code)]
fn confine(command: &mut Command, limits: &CompileLimits) {
    let rlimits = [
        (Resource::As, limits.memory_bytes),
        (Resource::Fsize, limits.output_bytes),
        (Resource::Cpu, limits.time.as_secs().max(1)),
        (Resource::Nofile, MAX_DESCRIPTORS),
        (Resource::Core, 0),
    ];
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. These are bare system calls on values that
    // the closure owns: no allocation, no lock.
    unsafe {
        command.pre_exec(move || {
            for (resource, value) in rlimits {
                setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
            }
            rustix::process::nice(NICENESS)?;
            // Ours are closed on exec anyway; this is for those that the host was started with. Linux before 5.11 cannot.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

/// Reads the component once: is it one, is it small enough, which one is it, and of which world?
pub(crate) fn digest_component(path: &Path, limit: u64) -> Result<(String, World), PrepareError> {
    let failed = |source| PrepareError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() > limit {
        return Err(PrepareError::TooLarge { path: path.to_owned(), bytes: metadata.len(), limit });
    }
    format::check(path, format::found(&mut file).map_err(failed)?)?;
    let world = World::of(&format::exports(&mut file).map_err(failed)?);
    file.rewind().map_err(failed)?;
    let digest = hexadecimal_digest(&mut file.take(limit)).map_err(failed)?;
    Ok((digest, world))
}
