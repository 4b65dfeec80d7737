//! Guests as WebAssembly components: compile, cache, link, instantiate, call, and the limits of each.
//!
//! The way of a guest: [`Engine::prepare`] turns a `.wasm` file into an [`Artifact`] (cold: a compiled file on disk),
//! [`Engine::load`] maps it (dormant: a [`Component`]), [`Component::instantiate`] makes an [`Instance`] (awake), and
//! dropping these goes the way back. Nothing here knows Kubernetes: a guest's HTTP requests go to an [`OutgoingHttp`].
//!
//! Guests are hostile. Every resource that a guest can make the host use has a limit, a broken limit ends the call with a
//! [`CallError`] that names the limit, and the instance is gone before the error is returned.

mod bindings;
mod cache;
mod call;
mod compile;
mod component;
mod contract;
mod convert;
mod engine;
mod error;
mod format;
mod http;
mod instance;
mod limiter;
mod linker;
mod logs;
mod meter;
mod program;
mod rest;
mod stacks;
mod state;
mod ticker;
mod timers;

pub use cache::Artifact;
pub use compile::{CompileError, CompileLimits, compile};
pub use component::{Component, GuestSettings};
pub use contract::{Interface, World};
pub use engine::{CACHE_BYTES, Engine, EngineOptions};
pub use error::{CallError, EngineError, Limit, LoadError, PrepareError};
pub use format::{Found, NotAComponent};
pub use http::{Answer, HttpError, OutgoingHttp, ResponseBody, ServeLimits, Timeouts};
pub use instance::Instance;
pub use logs::{GuestLogs, LogSink, Stream};
pub use program::{Program, ProgramRun, Turns, Usage};
