//! The demos: scenarios on a real control plane.

mod cluster;
mod config;
mod host;
mod manifest;
mod metrics;
mod offloader;
mod report;
mod ring;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use self::offloader::Offloader;
use self::ring::Ring;
use crate::signals::{INTERRUPTED, Interrupts};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What is shown.
    #[arg(value_enum, default_value_t = Scenarios::Ring)]
    scenario: Scenarios,
    /// Ends after it was shown instead of going on until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// How many guests form the ring. Other than 10, the configuration is made for the purpose instead of taken from
    /// `wasm_config.yaml`.
    #[arg(long, default_value_t = ring::GUESTS_IN_CHECKOUT, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    guests: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scenarios {
    /// A nonce goes round a ring of guests.
    Ring,
    /// An OpenWhisk action is offloaded, reconfigured and deleted, on simulated nodes.
    Offloader,
}

/// Everything that a demo runs.
trait Scenario: Sized {
    /// What it needs from the checkout. `devel/demo` builds all of it.
    const BUILT: &'static [&'static str];

    /// Starts everything.
    async fn prepare(arguments: &Arguments) -> Result<Self>;

    /// Shows it; returns at its end, or never unless it is to be shown `once`.
    async fn show(&mut self, once: bool) -> Result<()>;

    /// Ends everything in order. Dropping does the same without grace.
    async fn stop(self) -> Result<()>;
}

pub(crate) async fn execute(arguments: Arguments) -> Result<ExitCode> {
    match arguments.scenario {
        Scenarios::Ring => run::<Ring>(arguments).await,
        Scenarios::Offloader => run::<Offloader>(arguments).await,
    }
}

async fn run<S: Scenario>(arguments: Arguments) -> Result<ExitCode> {
    for built in [host::PROGRAM].iter().chain(S::BUILT) {
        ensure!(
            Path::new(built).exists(),
            "`{built}` is not here; `devel/demo` in a checkout builds all and calls this"
        );
    }
    let mut interrupts = Interrupts::new()?;
    // What is under way when an interrupt comes is dropped, and with it every process that it started.
    let mut scenario = tokio::select! {
        scenario = S::prepare(&arguments) => scenario?,
        () = interrupts.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let code = tokio::select! {
        outcome = scenario.show(arguments.once) => outcome.map(|()| ExitCode::SUCCESS),
        () = interrupts.next() => Ok(ExitCode::from(if arguments.once { INTERRUPTED } else { 0 })),
    };
    let stopped = scenario.stop().await;
    code.and_then(|code| stopped.map(|()| code))
}
