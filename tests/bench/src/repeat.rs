//! One measurement of one variant, from its start to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Context as _, Latencies, Metrics, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::apiserver::Requests;
use crate::contestant::{Contestant, Running};
use crate::lap::Eye;
use crate::stage::{Course, Stage};
use crate::system::{CpuTimes, Memory, MemoryGroup, Others, memory_of, warm_page_cache};
use crate::variant::Variant;

/// Between two laps, so that what a lap leaves behind (the event of the last write, an instance to drop) is not part of the next.
const LAP_PAUSE: Duration = Duration::from_millis(20);
/// A lap of a thousand guests on a busy machine takes some seconds.
const LAP_PATIENCE: Duration = Duration::from_secs(120);
/// A hundred Go processes on two busy cores take a minute to start.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How often memory is looked at under load.
const LOAD_SAMPLES: usize = 3;
/// By this verb the API server counts the driver's own writes: one for each lap.
const DRIVERS_VERB: &str = "APPLY";
/// The driver's own watch.
const DRIVERS_WATCHES: f64 = 1.0;

/// How a repeat is done.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Procedure {
    /// Hops that are timed; rounded up to whole laps.
    pub(crate) hops: usize,
    /// Laps at most: a single controller has one hop in each.
    pub(crate) most_laps: usize,
    /// Seconds from the end of the first lap until memory counts as idle.
    pub(crate) settle_seconds: u64,
    /// Seconds without any change, after the load.
    pub(crate) quiet_seconds: u64,
    /// Whether what hibernated guests have on disk is read into the page cache before each lap.
    pub(crate) warm_page_cache: bool,
}

impl Procedure {
    fn laps(&self, course: &Course) -> usize {
        self.hops.div_ceil(course.hops()).clamp(1, self.most_laps)
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Repeat {
    /// Cores that others used while hops were timed.
    pub(crate) others_cores: f64,
    /// From before the first process was started until the end of the first lap, whose nonce was written before.
    pub(crate) start_seconds: f64,
    /// After the first lap and `settleSeconds` of quiet.
    pub(crate) idle: Memory,
    /// The largest of some samples during further laps.
    pub(crate) load: Memory,
    /// After `quietSeconds` of quiet that follow the load.
    pub(crate) after: Memory,
    /// Hops that were timed.
    pub(crate) hops: usize,
    /// Milliseconds per hop, which half, 95 % and 99 % of the hops do not exceed, and the longest.
    pub(crate) hop_p50: f64,
    pub(crate) hop_p95: f64,
    pub(crate) hop_p99: f64,
    pub(crate) hop_most: f64,
    /// CPU seconds of the variant's processes per 1,000 hops.
    pub(crate) cpu_per_1000_hops: f64,
    /// CPU seconds of the API server and etcd per 1,000 hops.
    pub(crate) control_plane_cpu_per_1000_hops: f64,
    /// Requests for the ring's resource per hop, by verb, without the driver's.
    pub(crate) requests_per_hop: BTreeMap<String, f64>,
    /// Requests for other resources per hop, the API server's own among them.
    pub(crate) other_requests_per_hop: f64,
    /// Requests that were refused.
    pub(crate) refused: f64,
    /// Watches of the ring's resource that were open, without the driver's.
    pub(crate) open_watches: f64,
    /// Guests only: times an instance was made, per hop.
    pub(crate) wakes_per_hop: Option<f64>,
    /// Guests only: times an instance was made in the quiet time after the load.
    pub(crate) wakes_while_quiet: Option<f64>,
    /// Percent of a core that the variant used in that time.
    pub(crate) quiet_cpu_percent: f64,
    /// Hibernated programs only.
    pub(crate) hibernation: Option<Hibernation>,
}

/// What the host counted of its programs from its start to the last hop that was timed. Times in milliseconds, as linear as
/// the buckets of its histograms allow.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hibernation {
    /// To write what a program changed.
    pub(crate) to_sleep: Quantiles,
    /// KiB that were written each time, in the mean.
    pub(crate) written_kib: f64,
    /// From a wake to the end of the program's first turn.
    pub(crate) first_turn: Quantiles,
    /// From a wake to the program's first request.
    pub(crate) first_request: Quantiles,
}

/// What half and 95 % do not exceed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
}

impl Hibernation {
    /// None where nothing was hibernated.
    fn of(metrics: &Metrics) -> Option<Self> {
        let quantiles = |name| {
            let milliseconds = |quantile| Some(metrics.quantile(name, &[], quantile)? * 1e3);
            Some(Quantiles { p50: milliseconds(0.5)?, p95: milliseconds(0.95)? })
        };
        let sleeps = metrics.sum("wasm_operator_guest_hibernation_duration_seconds_count", &[]);
        Some(Self {
            to_sleep: quantiles("wasm_operator_guest_hibernation_duration_seconds")?,
            written_kib: metrics.sum("wasm_operator_guest_hibernation_written_bytes_total", &[]) / 1024.0 / sleeps,
            first_turn: quantiles("wasm_operator_guest_wake_duration_seconds")?,
            first_request: quantiles("wasm_operator_guest_first_request_delay_seconds")?,
        })
    }
}

/// Measures a variant once.
pub(crate) async fn measure(
    stage: &Stage,
    course: &Course,
    variant: Variant,
    procedure: &Procedure,
    contestant: Contestant,
    group: Option<&MemoryGroup>,
) -> Result<Repeat> {
    let mut eye = stage.watch().await?;
    let nonce = stage.send(course).await?;
    let start = Instant::now();
    let mut running = contestant.start().await?;
    let lap = tokio::select! {
        lap = eye.lap(nonce, &course.namespaces, START_PATIENCE) => lap,
        ended = death(&mut running) => Err(ended),
    };
    let arrivals = lap.with_context(|| format!("the first lap of `{}`", variant.id))?;
    let ready = arrivals.iter().max().context("a lap without arrivals")?.saturating_duration_since(start);
    let driver = Driver { stage, course, group };
    let result = driver.phases(&mut eye, &running, procedure, ready).await;
    // Whatever went wrong, that a process has ended explains it better.
    running.ensure_alive()?;
    stage.ensure_alive()?;
    result.with_context(|| format!("`{}` with {} controllers", variant.id, course.controllers))
}

async fn death(running: &mut Running) -> harness::Error {
    loop {
        if let Err(error) = running.ensure_alive() {
            return error;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

struct Driver<'a> {
    stage: &'a Stage,
    course: &'a Course,
    group: Option<&'a MemoryGroup>,
}

impl Driver<'_> {
    async fn phases(&self, eye: &mut Eye, running: &Running, procedure: &Procedure, ready: Duration) -> Result<Repeat> {
        let pids = running.pids()?;
        sleep(Duration::from_secs(procedure.settle_seconds)).await;
        let idle = self.memory(&pids)?;

        let laps = procedure.laps(self.course);
        let wakes = wakes(running).await?;
        let client = self.stage.client();
        let requests = Requests::read(&client).await?;
        let control_plane = self.stage.pids();
        let measured: Vec<u32> = control_plane.iter().chain(&pids).copied().collect();
        let others = Others::than(&measured)?;
        let (cpu, control_plane_cpu) = (CpuTimes::of(&pids)?, CpuTimes::of(&control_plane)?);
        let latencies = self.laps(eye, laps, procedure.warm_page_cache.then_some(&*pids)).await?;
        let cpu = CpuTimes::of(&pids)?.since(&cpu);
        let control_plane_cpu = CpuTimes::of(&control_plane)?.since(&control_plane_cpu);
        let others_cores = others.cores()?;
        let hops = latencies.len() as f64;
        let after = Requests::read(&client).await?;
        let made = after.since(&requests).without(DRIVERS_VERB, laps as f64).per(hops);
        let metrics = running.metrics().await?;
        let wakes_per_hop = difference(metrics.as_ref().map(all_wakes), wakes).map(|wakes| wakes / hops);
        let hibernation = metrics.as_ref().and_then(Hibernation::of);

        let load = self.memory_under_load(eye, &pids).await?;
        let quiet = self.quiet(running, &pids, procedure.quiet_seconds).await?;
        let milliseconds = |percent| latencies.percentile(percent).as_secs_f64() * 1e3;
        let per_1000 = |cpu: Duration| cpu.as_secs_f64() / hops * 1e3;
        Ok(Repeat {
            others_cores,
            start_seconds: ready.as_secs_f64(),
            idle,
            load,
            after: quiet.memory,
            hops: latencies.len(),
            hop_p50: milliseconds(50),
            hop_p95: milliseconds(95),
            hop_p99: milliseconds(99),
            hop_most: milliseconds(100),
            cpu_per_1000_hops: per_1000(cpu),
            control_plane_cpu_per_1000_hops: per_1000(control_plane_cpu),
            requests_per_hop: made.by_verb,
            other_requests_per_hop: made.elsewhere,
            refused: made.refused,
            open_watches: after.open_watches - DRIVERS_WATCHES,
            wakes_per_hop,
            wakes_while_quiet: quiet.wakes,
            quiet_cpu_percent: quiet.cpu_percent,
            hibernation,
        })
    }

    async fn laps(&self, eye: &mut Eye, laps: usize, warmed: Option<&[u32]>) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        for _ in 0..laps {
            if let Some(pids) = warmed {
                warm_page_cache(pids)?;
            }
            let nonce = self.stage.send(self.course).await?;
            let arrivals = eye.lap(nonce, &self.course.namespaces, LAP_PATIENCE).await?;
            self.course.latencies(&arrivals).for_each(|hop| latencies.add(hop));
            sleep(LAP_PAUSE).await;
        }
        Ok(latencies)
    }

    /// Reading the memory of a hundred processes takes longer than a lap, so these laps are not timed.
    async fn memory_under_load(&self, eye: &mut Eye, pids: &[u32]) -> Result<Memory> {
        let mut most = Memory::default();
        for _ in 0..LOAD_SAMPLES {
            let nonce = self.stage.send(self.course).await?;
            let memory = self.memory(pids)?;
            most = most.most(&memory);
            eye.lap(nonce, &self.course.namespaces, LAP_PATIENCE).await?;
        }
        Ok(most)
    }

    async fn quiet(&self, running: &Running, pids: &[u32], seconds: u64) -> Result<Quiet> {
        // What the last lap left behind is not quiet yet.
        sleep(LAP_PAUSE * 10).await;
        let (before, cpu, start) = (wakes(running).await?, CpuTimes::of(pids)?, Instant::now());
        sleep(Duration::from_secs(seconds)).await;
        let cpu = CpuTimes::of(pids)?.since(&cpu).as_secs_f64();
        let elapsed = start.elapsed().as_secs_f64();
        let memory = self.memory(pids)?;
        let wakes = difference(wakes(running).await?, before);
        Ok(Quiet { memory, wakes, cpu_percent: 100.0 * cpu / elapsed })
    }

    fn memory(&self, pids: &[u32]) -> Result<Memory> {
        let cgroup = self.group.and_then(MemoryGroup::working_set);
        Ok(Memory { cgroup, ..memory_of(pids)? })
    }
}

struct Quiet {
    memory: Memory,
    wakes: Option<f64>,
    cpu_percent: f64,
}

async fn wakes(running: &Running) -> Result<Option<f64>> {
    Ok(running.metrics().await?.as_ref().map(all_wakes))
}

fn all_wakes(metrics: &Metrics) -> f64 {
    metrics.sum("wasm_operator_guest_wakes_total", &[])
}

fn difference(after: Option<f64>, before: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_counted_of_hibernations_is_read() {
        let histogram = |name: &str, buckets: &[(&str, u32)]| {
            let bucket =
                |(end, count): &(&str, u32)| format!("wasm_operator_guest_{name}_bucket{{le=\"{end}\"}} {count}\n");
            let count = buckets.last().map_or(0, |(_, count)| *count);
            buckets.iter().map(bucket).collect::<String>() + &format!("wasm_operator_guest_{name}_count {count}\n")
        };
        let text = histogram("hibernation_duration_seconds", &[("0.001", 2), ("0.003", 4), ("+Inf", 4)])
            + &histogram("wake_duration_seconds", &[("0.001", 4), ("+Inf", 4)])
            + &histogram("first_request_delay_seconds", &[("0.004", 4), ("+Inf", 4)]);
        assert_eq!(Hibernation::of(&Metrics::parse("")), None);
        let read = Hibernation::of(&Metrics::parse(&format!(
            "{text}wasm_operator_guest_hibernation_written_bytes_total 8192\n"
        )));
        let read = read.unwrap();
        assert_eq!((read.to_sleep.p50, read.written_kib, read.first_request.p50), (1.0, 2.0, 2.0));
    }
}
