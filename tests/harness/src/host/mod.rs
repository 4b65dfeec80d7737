//! The host under test: the static binary as a child process.

mod admin;
mod build;
pub(crate) mod command;
pub(crate) mod memory;
mod process;
mod rbac;

pub use build::HostBuilder;
pub use process::Host;
