//! The binary `wasm-operator`.

mod admin;
mod app;
mod authorities;
mod checks;
mod cli;
mod forecast;
mod front_door;
mod graveyard;
mod guest;
mod guest_log;
mod host;
mod outgoing;
mod pool;
mod pressure;
mod program;
mod reconcile;
mod recorder;
mod revision;
mod scheduler;
mod subscriber;
mod waiting;
mod why;
mod workers;

use std::process::ExitCode;

use clap::Parser;
use wasm_operator_hibernation::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    cli::Cli::parse().execute()
}
