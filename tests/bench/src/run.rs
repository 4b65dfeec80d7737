//! From the command line to the results.

use std::path::Path;
use std::process::ExitCode;

use harness::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use wasm_operator_devel::Progress;

use crate::campaign::{Campaign, Measured};
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
    let no_cgroup = MemoryGroup::create().err();
    let stage = Stage::start().await?;
    let started = jiff::Timestamp::now();
    let (machine, version) = (Machine::this(), stage.version().await?);
    let results =
        |measured: &[Measured]| Results::new(started, &machine, &version, campaign, measured, no_cgroup.as_deref());
    let measured = campaign.run(&stage, |measured| report::write(&results(measured), out)).await?;
    let results = results(&measured);
    report::print(&results)?;
    let failures = results.failures();
    ensure!(
        failures.is_empty(),
        "not everything could be measured; the rest is in `{}`\n{}",
        out.display(),
        failures.join("\n")
    );
    Ok(())
}
