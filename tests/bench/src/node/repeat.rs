//! One measurement of one variant, from its first pod to the last.

use std::time::Duration;

use harness::{Context as _, Latencies, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::cgroups::{self, Used};
use super::pods::Pods;
use super::prepare::{Deployed, Memory, make_kept_cache, prepare};
use super::stage::Stage;
use crate::lap::Eye;
use crate::stage::Course;
use crate::system::Others;

/// Between two laps, so that what a lap leaves behind is not part of the next.
const LAP_PAUSE: Duration = Duration::from_millis(20);
/// A lap of a hundred controllers takes less than a second where there is memory.
const LAP_PATIENCE: Duration = Duration::from_secs(60);
/// A hundred pods take a minute or two to start.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// Ten pods that have not passed a nonce on by then do not have the memory for it.
const LIMITED_START_PATIENCE: Duration = Duration::from_secs(90);
/// How often memory is looked at under load.
const LOAD_SAMPLES: usize = 3;

/// The pods did not do their work: what a memory limit that is too small leads to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotBorne(pub(super) String);

/// How a repeat is done.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    /// Hops that are timed; rounded up to whole laps.
    pub(crate) hops: usize,
    /// Seconds from the end of the first lap until memory counts as idle.
    pub(crate) settle_seconds: u64,
    /// Repeats without a limit that a limit is compared with.
    pub(crate) limit_repeats: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { hops: 500, settle_seconds: 10, limit_repeats: 3 }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Repeat {
    /// Cores that others used while hops were timed.
    pub(crate) others_cores: f64,
    /// From the first pod's creation until a nonce that was written before has been round once.
    pub(crate) start_seconds: f64,
    /// MiB after the first lap and `settleSeconds` of quiet.
    pub(crate) idle: Used,
    /// MiB, the largest of some samples during laps.
    pub(crate) load: Used,
    /// MiB, the most that each pod ever had, summed; the compiler included where one ran.
    pub(crate) peak: f64,
    /// Milliseconds.
    pub(crate) hop_p50: f64,
    /// Milliseconds.
    pub(crate) hop_p95: f64,
    /// Milliseconds.
    pub(crate) hop_p99: f64,
    /// Restarts of containers.
    pub(crate) restarts: i32,
}

/// Runs a variant once.
pub(crate) async fn repeat(
    stage: &Stage,
    plan: &Plan,
    variant: Deployed,
    controllers: usize,
    memory: Memory,
) -> Result<Repeat> {
    let course = stage.course(controllers).await?;
    make_kept_cache()?;
    let prepared = prepare(stage, &course, variant, memory).await?;
    drop_file_pages()?;
    let before = Used::now()?;
    let mut eye = stage.watch().await?;
    let nonce = stage.send(&course).await?;
    let start = Instant::now();
    let pods = Pods::create(stage, prepared).await?;
    let patience = if matches!(memory, Memory::Limit(_)) { LIMITED_START_PATIENCE } else { START_PATIENCE };
    let measured = async {
        lap(&mut eye, nonce, &course, patience).await?;
        let started = start.elapsed();
        measure(stage, plan, &course, &mut eye, &before, started).await
    };
    let measured = tokio::select! {
        measured = measured => measured,
        failed = pods.until_failure() => Err(failed.err().context("a failure without a reason")?),
    };
    let restarts = pods.restarts().await;
    pods.remove().await?;
    Ok(Repeat { restarts: restarts?, ..measured? })
}

async fn measure(
    stage: &Stage,
    plan: &Plan,
    course: &Course,
    eye: &mut Eye,
    before: &Used,
    started: Duration,
) -> Result<Repeat> {
    sleep(Duration::from_secs(plan.settle_seconds)).await;
    let idle = Used::now()?.since(before);
    let measured: Vec<u32> = stage.pids()?.into_iter().chain(cgroups::processes()?).collect();
    let others = Others::than(&measured)?;
    let mut latencies = Latencies::default();
    for _ in 0..plan.hops.div_ceil(course.hops()) {
        let nonce = stage.send(course).await?;
        let arrivals = lap(eye, nonce, course, LAP_PATIENCE).await?;
        course.latencies(&arrivals).for_each(|hop| latencies.add(hop));
        sleep(LAP_PAUSE).await;
    }
    let others_cores = others.cores()?;
    let mut load = Used::default();
    for _ in 0..LOAD_SAMPLES {
        let nonce = stage.send(course).await?;
        let now = Used::now()?.since(before);
        load = if now.sum() > load.sum() { now } else { load };
        lap(eye, nonce, course, LAP_PATIENCE).await?;
    }
    let milliseconds = |percent| latencies.percentile(percent).as_secs_f64() * 1e3;
    Ok(Repeat {
        others_cores,
        start_seconds: started.as_secs_f64(),
        idle,
        load,
        peak: cgroups::peak()?,
        hop_p50: milliseconds(50),
        hop_p95: milliseconds(95),
        hop_p99: milliseconds(99),
        restarts: 0,
    })
}

/// A lap that stops is the pods' fault: the driver and the control plane have all the memory that they want.
async fn lap(eye: &mut Eye, nonce: i64, course: &Course, patience: Duration) -> Result<Vec<Instant>> {
    eye.lap(nonce, &course.namespaces, patience).await.map_err(|error| NotBorne(format!("{error:#}")).into())
}

/// File pages are charged to whoever reads them first. Those of the images were read by whoever built and imported them; from now on
/// they are charged to the pods, as on a node that has had the image for a while.
fn drop_file_pages() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1\n")
        .context("cannot drop file pages; the benchmark of the node needs root")
}
