//! The benchmark: the same ring of controllers as Go, native Rust and wasm-operator, in one run. `README.md` says what is
//! measured, how, and what makes it fair.

mod apiserver;
mod cache;
mod campaign;
mod cli;
mod contestant;
mod distinct;
mod lap;
mod node;
mod repeat;
mod report;
mod run;
mod stage;
mod statistics;
mod system;
mod traces;
mod variant;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Another benchmark, with arguments of its own.
    let (node, arguments): (Vec<_>, Vec<_>) = std::env::args_os().partition(|argument| argument == "--node");
    let outcome = if node.is_empty() {
        run::run(&cli::Arguments::parse_from(arguments))
    } else {
        node::run(&node::Arguments::parse_from(arguments))
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
