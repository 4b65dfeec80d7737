//! The same comparison the way it is deployed: pods on a real node, whose memory is that of their cgroups. `devel/node/bench`
//! makes the node and the images, and calls this as `bench --node`.

mod cgroups;
mod limit;
mod pods;
mod prepare;
mod repeat;
mod report;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use harness::{Context as _, Result, target};
use tokio::signal::unix::{SignalKind, signal};
use wasm_operator_devel::Progress;

use crate::statistics::Spread;
use crate::system::Machine;
use crate::variant;
use prepare::{Deployed, Memory};
use repeat::{Bounds, NotBorne, Plan, Repeat, repeat};
use report::{Limits, Results, Row};
use stage::Stage;

/// What a shell reports for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Controllers in the row with memory limits: enough to be a ring, few enough for a dozen restarts of all.
const LIMITED: usize = 10;
/// A limit is borne as long as the 95th percentile of a hop is not more than this many times what it is without.
const MOST_SLOWDOWN: f64 = 2.0;
/// The same for the start: programs whose pages are evicted as they are read may start for minutes.
const MOST_SLOWDOWN_AT_START: f64 = 3.0;
/// Ten controllers that do not pass a nonce on within this time do not have the memory for it.
const LIMITED_LAP_PATIENCE: Duration = Duration::from_secs(10);

/// Measures the same ring of controllers as Go pods, as Rust pods and as the guests of one wasm-operator pod, on a real node. Needs root.
#[derive(Debug, Parser)]
#[command(name = "devel/bench --node", bin_name = "devel/bench --node", version)]
pub(crate) struct Arguments {
    /// Numbers of controllers
    #[arg(long, value_delimiter = ',', value_name = "N,...", default_values_t = [10, 50, 100], value_parser = variant::controllers)]
    n: Vec<usize>,
    /// Repeats of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Hops that are timed in a repeat
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    hops: u32,
    /// Leaves out the search for the smallest memory limits
    #[arg(long)]
    no_limits: bool,
    /// Where the results go; default: `bench-node` in the target directory
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// Measures and writes the results. Ctrl-C and SIGTERM end the program; `devel/node/bench` ends the node.
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
    let out = arguments.out.clone().map_or_else(|| Ok::<_, harness::Error>(target()?.join("bench-node")), Ok)?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make `{}`", out.display()))?;
    let stage = Stage::from_environment().await?;
    let mut results = Results {
        started: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        machine: Machine::this(),
        node: stage.versions().await?,
        plan: Plan { hops: arguments.hops as usize, ..Plan::default() },
        rows: Vec::new(),
        limits: Vec::new(),
    };
    // Written after each number of controllers: the whole takes an hour.
    for controllers in &arguments.n {
        results.rows.extend(compare(&stage, &results.plan, *controllers, arguments.repeats).await?);
        report::write(&results, &out)?;
    }
    if !arguments.no_limits {
        for variant in Deployed::ALL {
            let name = format!("the smallest limit of {} with {LIMITED}", variant.title());
            let found = Progress::default().during(&name, limits_of(&stage, &results.plan, variant)).await;
            results.limits.push(found.context(name)?);
            report::write(&results, &out)?;
        }
    }
    report::print(&results)?;
    Progress::default().line(&format!("\nThe results are in {}", out.display()));
    Ok(())
}

/// Variants take turns, so that what changes over time meets all of them.
async fn compare(stage: &Stage, plan: &Plan, controllers: usize, repeats: u16) -> Result<Vec<Row>> {
    let mut rows = Deployed::ALL.map(|variant| Row { variant, controllers, repeats: Vec::new() });
    for round in 1..=repeats {
        for row in &mut rows {
            let name = format!("{} with {controllers}, repeat {round}", row.variant.title());
            let done = repeat(stage, plan, row.variant, controllers, Memory::AsDeployed, Bounds::default());
            row.repeats.push(Progress::default().during(&name, done).await.with_context(|| name.clone())?);
        }
    }
    Ok(rows.into())
}

async fn limits_of(stage: &Stage, plan: &Plan, variant: Deployed) -> Result<Limits> {
    let mut free = Vec::new();
    for _ in 0..plan.limit_repeats {
        free.push(repeat(stage, plan, variant, LIMITED, Memory::Unlimited, Bounds::default()).await?);
    }
    let median = |figure: fn(&Repeat) -> f64| Spread::of(free.iter().map(figure)).map_or(0.0, |spread| spread.median);
    let (p95, peak) = (median(|repeat| repeat.hop_p95), median(|repeat| repeat.peak));
    let bounds = Bounds {
        start: Duration::from_secs_f64(MOST_SLOWDOWN_AT_START * median(|repeat| repeat.start_seconds)),
        lap: LIMITED_LAP_PATIENCE,
        hop_p95: Some(Duration::from_secs_f64(MOST_SLOWDOWN * p95 / 1e3)),
    };
    let pods = variant.pods(LIMITED);
    // What a pod took at most without a limit is enough for certain.
    let enough = (peak / pods as f64).ceil() as u64 + 1;
    let mut with = None;
    let smallest = limit::smallest(enough, async |mebibytes| {
        match repeat(stage, plan, variant, LIMITED, Memory::Limit(mebibytes), bounds).await {
            Ok(repeat) if repeat.restarts == 0 => {
                with = Some(repeat);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.is::<NotBorne>() => Ok(false),
            Err(error) => Err(error),
        }
    });
    let mebibytes = smallest.await?;
    Ok(Limits { variant, controllers: LIMITED, pods, mebibytes, p95_without: p95, with })
}
