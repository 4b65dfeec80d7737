//! Forecasts of the next event of a guest over HTTP, and the evaluator of sleep policies.

use std::io::{IsTerminal as _, stderr};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use wasm_operator_prediction::server;

#[derive(Debug, clap::Parser)]
#[command(version, about)]
enum Command {
    /// Answers `POST /prediction` with the time of the next event
    Serve(server::Args),
    /// Replays traces of events through every sleep policy in virtual time
    Evaluate(wasm_operator_evaluator::Args),
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_env_filter(filter)
        .log_internal_errors(false) // it would panic where nobody reads the log any more
        .init();
    match command {
        Command::Serve(args) => server::run(&args),
        Command::Evaluate(args) => wasm_operator_evaluator::run(&args),
    }
}
