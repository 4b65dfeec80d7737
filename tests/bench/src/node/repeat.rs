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

/// What the pods are given up for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// From the first pod's creation to the end of the first lap.
    pub(crate) start: Duration,
    /// A lap.
    pub(crate) lap: Duration,
    /// The 95th percentile of a hop.
    pub(crate) hop_p95: Option<Duration>,
}

impl Default for Bounds {
    /// A hundred pods take a minute or two to start, and less than a second for a lap where there is memory.
    fn default() -> Self {
        Self { start: Duration::from_secs(600), lap: Duration::from_secs(60), hop_p95: None }
    }
}

impl Bounds {
    /// Whether so many hops were too slow that no others can make up for them.
    fn are_passed(&self, latencies: &Latencies, hops: usize) -> bool {
        self.hop_p95.is_some_and(|most| latencies.longer_than(most) > hops - (hops * 95).div_ceil(100))
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
    bounds: Bounds,
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
    let measured = async {
        lap(&mut eye, nonce, &course, bounds.start).await?;
        let started = start.elapsed();
        measure(stage, plan, &course, &mut eye, &before, started, bounds).await
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
    bounds: Bounds,
) -> Result<Repeat> {
    sleep(Duration::from_secs(plan.settle_seconds)).await;
    let idle = Used::now()?.since(before);
    let measured: Vec<u32> = stage.pids()?.into_iter().chain(cgroups::processes()?).collect();
    let others = Others::than(&measured)?;
    let mut latencies = Latencies::default();
    let laps = plan.hops.div_ceil(course.hops());
    for _ in 0..laps {
        let nonce = stage.send(course).await?;
        let arrivals = lap(eye, nonce, course, bounds.lap).await?;
        course.latencies(&arrivals).for_each(|hop| latencies.add(hop));
        if bounds.are_passed(&latencies, laps * course.hops()) {
            return Err(NotBorne("hops take too long".to_owned()).into());
        }
        sleep(LAP_PAUSE).await;
    }
    let others_cores = others.cores()?;
    let mut load = Used::default();
    for _ in 0..LOAD_SAMPLES {
        let nonce = stage.send(course).await?;
        let now = Used::now()?.since(before);
        load = if now.sum() > load.sum() { now } else { load };
        lap(eye, nonce, course, bounds.lap).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(milliseconds: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        milliseconds.into_iter().for_each(|hop| latencies.add(Duration::from_millis(hop)));
        latencies
    }

    #[test]
    fn slow_hops_are_given_up_as_soon_as_their_percentile_is_certain() {
        let bounds = Bounds { hop_p95: Some(Duration::from_millis(10)), ..Bounds::default() };
        for slow in 0..=100 {
            let all = latencies((0..100).map(|hop| if hop < slow { 11 } else { 10 }));
            let is_slow = all.percentile(95) > Duration::from_millis(10);
            assert_eq!(bounds.are_passed(&all, 100), is_slow, "{slow}");
            assert_eq!(bounds.are_passed(&latencies((0..slow).map(|_| 11)), 100), is_slow, "{slow}");
        }
        assert!(!Bounds::default().are_passed(&latencies([60_000; 100]), 100));
    }
}
