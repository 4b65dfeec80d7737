//! From the command line to the results.

use std::path::Path;
use std::process::ExitCode;

use harness::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use wasm_operator_devel::Progress;

use crate::campaign::Campaign;
use crate::cli::Arguments;
use crate::report::{self, Results};
use crate::stage::Stage;
use crate::system::{Machine, MemoryGroup};

/// What a shell reports for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Measures and writes the results. Ctrl-C and SIGTERM end every process that was started.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    // One thread: the driver must not take the second core from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            result = bench(arguments) => result.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    })
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let campaign = arguments.campaign()?;
    let out = arguments.out()?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make `{}`", out.display()))?;
    match arguments.replay() {
        Some(replay) => replay.run(&Stage::start().await?, &out).await?,
        None => ring(&campaign, &out).await?,
    }
    Progress::default().line(&format!("\nThe results are in {}", out.display()));
    Ok(())
}

async fn ring(campaign: &Campaign, out: &Path) -> Result<()> {
    // Made before the stage, so that it is removed after the processes in it have ended.
    let group = MemoryGroup::create();
    let stage = Stage::start().await?;
    let started = jiff::Timestamp::now();
    let measured = campaign.run(&stage, group.as_ref().ok()).await?;
    let (machine, version, no_cgroup) = (Machine::this(), stage.version().await?, group.as_ref().err().cloned());
    report::write(&Results::new(started, machine, version, campaign, &measured, no_cgroup), out)
}
