//! What can go wrong, and who can mend it.

use std::io;
use std::path::PathBuf;

use crate::compile::CompileError;
use crate::format::NotAComponent;

/// The host cannot run any guest. Mended by whoever runs the host.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The directory of compiled components cannot be used.
    #[error("cannot use the cache directory `{}`: {source}; choose another one or correct its owner", .path.display())]
    CacheDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could put native code into the cache, which the host would run.
    #[error("the cache directory `{}` belongs to user {owner}; the host trusts the compiled code in it, so it must be its own", .path.display())]
    CacheOwner {
        /// The directory.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
    },
    /// No command to compile with.
    #[error("no compile command is set")]
    NoCompiler,
    /// The machine lacks something that WebAssembly needs, or the options contradict each other.
    #[error("cannot start the WebAssembly engine: {0}")]
    Wasmtime(String),
    /// The thread that ticks cannot be started.
    #[error("cannot start the epoch thread: {0}")]
    Thread(io::Error),
}

/// A `.wasm` file did not become a compiled component.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file cannot be read. Mended by the administrator.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mended by the guest's author, or by raising the limit.
    #[error("`{}` has {bytes} bytes, more than the {limit} that a component may have", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Mended by the administrator, most likely it is the wrong file, or by the guest's author.
    #[error(transparent)]
    NotAComponent(#[from] NotAComponent),
    /// The file was replaced while it was compiled. Trying again helps.
    #[error("`{}` changed while it was being compiled; it is tried again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The compiler refused it, took too long or died. Mended by the guest's author, or by raising the compile limits.
    #[error("cannot compile `{}`: {source}", .path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CompileError,
    },
    /// The cache cannot be read or written. Mended by whoever runs the host.
    #[error("cannot use the cache of compiled components: {0}")]
    Cache(io::Error),
}

impl PrepareError {
    /// Whether trying again without any change can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Cache(_))
    }
}

/// A compiled component did not become a linked one.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The compiled file was evicted or replaced: prepare it again.
    #[error("the compiled component `{}` is gone or has changed; it has to be prepared again", .path.display())]
    Stale {
        /// The compiled file.
        path: PathBuf,
    },
    /// The file is not code for this engine: prepare it again.
    #[error("the compiled component `{}` cannot be mapped: {message}", .path.display())]
    Map {
        /// The compiled file.
        path: PathBuf,
        /// wasmtime's words.
        message: String,
    },
    /// Mended by the guest's author.
    #[error(
        "the component is built for `{found}`, this host serves `wasm-operator:controller@{}`; rebuild it with a matching SDK",
        crate::contract::SERVED
    )]
    Version {
        /// The package that it imports.
        found: String,
    },
    /// Mended by the guest's author.
    #[error(
        "the component does not export {}; it exports {}; it must target the world `wasm-operator:controller/controller`, \
         or be a program that exports `wasi:cli/run` 0.2",
        crate::contract::quoted(.missing),
        crate::contract::quoted(.found)
    )]
    MissingExports {
        /// What a controller must export and this one does not.
        missing: Vec<String>,
        /// What it exports.
        found: Vec<String>,
    },
    /// Mended by the guest's author.
    #[error(
        "the component imports {}, which this host does not provide; it provides WASI 0.2 (`cli`, `clocks`, `io`, `random`, `http`)",
        crate::contract::quoted(.imports)
    )]
    UnknownImports {
        /// The imports that nothing satisfies.
        imports: Vec<String>,
    },
    /// An import or export has the right name and the wrong type. Mended by the guest's author.
    #[error("the component does not fit the world `wasm-operator:controller/controller`: {0}")]
    Link(String),
}

impl LoadError {
    pub(crate) fn link(error: wasmtime::Error) -> Self {
        Self::Link(format!("{error:#}"))
    }

    /// Whether [`prepare`](crate::Engine::prepare) and another load may help.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. } | Self::Map { .. })
    }
}

/// A limit of a guest, as named in its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Limit {
    /// Linear memory, summed over all memories of an instance.
    Memory = 1,
    /// Table elements, summed over all tables of an instance.
    Table,
    /// WebAssembly stack.
    Stack,
    /// CPU time of a call.
    Cpu,
    /// Wall time of a call.
    Deadline,
    /// HTTP requests in a call.
    Requests,
    /// HTTP requests at once.
    RequestsInFlight,
    /// Body of a request.
    RequestBytes,
    /// Body of a response.
    ResponseBytes,
    /// Handles of host resources such as streams, requests and pollables.
    Resources,
    /// Data in one call of a host function.
    HostCall,
    /// Time or size of `describe`.
    Describe,
    /// Wall time of a request that the guest serves.
    Serve,
}

impl Limit {
    pub(crate) const ALL: [Limit; 13] = [
        Limit::Memory,
        Limit::Table,
        Limit::Stack,
        Limit::Cpu,
        Limit::Deadline,
        Limit::Requests,
        Limit::RequestsInFlight,
        Limit::RequestBytes,
        Limit::ResponseBytes,
        Limit::Resources,
        Limit::HostCall,
        Limit::Describe,
        Limit::Serve,
    ];

    /// The stable label for metrics and Events.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory-limit",
            Self::Table => "table-limit",
            Self::Stack => "stack-limit",
            Self::Cpu => "cpu-limit",
            Self::Deadline => "deadline",
            Self::Requests => "request-limit",
            Self::RequestsInFlight => "requests-in-flight-limit",
            Self::RequestBytes => "request-bytes-limit",
            Self::ResponseBytes => "response-bytes-limit",
            Self::Resources => "resource-limit",
            Self::HostCall => "host-call-limit",
            Self::Describe => "describe-limit",
            Self::Serve => "serve-deadline",
        }
    }

    /// What to change where, for the end of a message.
    fn advice(self) -> &'static str {
        match self {
            Self::Memory => "bytes of linear memory (`limits.memoryBytes`)",
            Self::Table => "table elements (`limits.tableElements`)",
            Self::Stack => "bytes of WebAssembly stack (host-wide); recursion that deep is most likely endless",
            Self::Cpu => "ms of CPU time in one call (`limits.cpuMilliseconds`)",
            Self::Deadline => "ms of wall time in one call (`limits.reconcileMilliseconds`)",
            Self::Requests => "HTTP requests in one call (`limits.requestsPerCall`)",
            Self::RequestsInFlight => "HTTP requests at once (`limits.requestsInFlight`)",
            Self::RequestBytes => "bytes in the body of a request (`limits.requestBytes`)",
            Self::ResponseBytes => "bytes in the body of a response (`limits.responseBytes`)",
            Self::Resources => "open handles of host resources (fixed); a guest that needs more leaks them",
            Self::HostCall => "bytes in one call of a host function (fixed); write in smaller pieces",
            Self::Describe => "ms for `describe` (fixed); it may only build its answer",
            Self::Serve => "ms of wall time for one request (`serve.milliseconds`)",
        }
    }
}

/// A call did not return. The instance is gone; the next call needs a fresh one.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guest used more than it may. Mended by its author, or by the administrator who raises the limit.
    #[error("more than {allowed} {}{}", .limit.advice(), tail(.last_stderr))]
    Limit {
        /// Which.
        limit: Limit,
        /// Its value, in the unit of its configuration key.
        allowed: u64,
        /// The last lines that the guest wrote to stderr.
        last_stderr: String,
    },
    /// The guest trapped: a panic, an out-of-bounds access, a failed assertion. Mended by its author.
    #[error("the guest trapped: {message}{}", tail(.last_stderr))]
    Trap {
        /// wasmtime's words.
        message: String,
        /// The last lines that the guest wrote to stderr; a Rust panic says there where it happened.
        last_stderr: String,
    },
    /// The guest ended itself. Mended by its author.
    #[error("the guest ended itself by `exit({code})`{}", tail(.last_stderr))]
    Exit {
        /// The exit code.
        code: i32,
        /// The last lines that the guest wrote to stderr.
        last_stderr: String,
    },
    /// The program's `main` returned. Mended by its author; an error that it returned is usually on its stderr.
    #[error("the program's `main` returned{}{}", if *.failed { " an error" } else { "" }, tail(.last_stderr))]
    Returned {
        /// Whether it returned an error.
        failed: bool,
        /// The last lines that the guest wrote to stderr.
        last_stderr: String,
    },
    /// `describe` returned an error. Mended by the administrator: most likely an environment variable or argument.
    #[error("the guest's `describe` failed: {0}")]
    Describe(String),
    /// `describe` returned something that this host does not take. Mended by the guest's author.
    #[error("the guest's description is refused: {0}")]
    Description(String),
    /// Part of the host panicked on behalf of this guest. Mended by us.
    #[error("the host panicked while it served the guest: {0}; please report it")]
    Panic(String),
    /// The component has no `wasi:http/incoming-handler`. Mended by its author.
    #[error("the guest does not export `wasi:http/incoming-handler`; it serves no requests")]
    ServesNothing,
    /// The instance had failed before. A mistake of the caller.
    #[error("the instance is gone after an earlier error")]
    Gone,
}

impl CallError {
    /// The stable label for metrics and Events.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Limit { limit, .. } => limit.label(),
            Self::Trap { .. } => "trap",
            Self::Exit { .. } => "exit",
            Self::Returned { .. } => "returned",
            Self::Describe(_) | Self::Description(_) => "describe",
            Self::Panic(_) => "host-panic",
            Self::ServesNothing => "serves-nothing",
            Self::Gone => "gone",
        }
    }

    /// What happened, without a word of the guest's own: for Events, where guests must not speak in the host's name.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Limit { limit, allowed, .. } => format!("it used more than {allowed} {}", limit.advice()),
            Self::Trap { .. } => "it trapped; the host's log says where".to_owned(),
            Self::Exit { code, .. } => format!("it ended itself by `exit({code})`"),
            Self::Returned { failed: false, .. } => "its `main` returned; a controller goes on".to_owned(),
            Self::Returned { failed: true, .. } => "its `main` returned an error; the host's log says which".to_owned(),
            Self::Describe(_) => "its `describe` failed; the host's log says why".to_owned(),
            Self::Description(_) => "its description is refused; the host's log says why".to_owned(),
            Self::ServesNothing => "it serves no requests".to_owned(),
            Self::Panic(_) | Self::Gone => "the host failed while it served the guest; please report it".to_owned(),
        }
    }

    /// Every label that [`kind`](Self::kind) can return, so that metrics can start at zero.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        Limit::ALL.into_iter().map(Limit::label).chain([
            "trap",
            "exit",
            "returned",
            "describe",
            "host-panic",
            "serves-nothing",
            "gone",
        ])
    }
}

fn tail(last_stderr: &str) -> String {
    if last_stderr.is_empty() { String::new() } else { format!("; its stderr ends with `{last_stderr}`") }
}
