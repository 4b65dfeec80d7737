//! The binary `wasm-operator`.

mod admin;
mod app;
mod checks;
mod cli;
mod guest;
mod guest_log;
mod host;
mod outgoing;
mod pool;
mod reconcile;
mod revision;
mod scheduler;
mod subscriber;
mod workers;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().execute()
}
