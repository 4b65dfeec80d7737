//! Writes events when they are due, and looks at memory meanwhile.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use harness::{Context as _, Result, ring};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::lane::{Counts, Lane, Side};
use crate::lap::{Arrival, Eye};
use crate::stage::Stage;
use crate::system::{CpuTimes, Others, memory_of};

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(500);
/// How long after the last event its answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Memory of a host at a moment, in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Seconds since the start.
    pub(super) at: f64,
    /// Anonymous memory.
    pub(super) anonymous: f64,
    /// Resident memory.
    pub(super) rss: f64,
}

/// What became of one lane.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Time from each event to its answer, or to that of a later one: what comes while a guest runs is handled at once.
    pub(super) delays: Vec<Duration>,
    /// Events without an answer.
    pub(super) lost: usize,
    /// What the host counted.
    pub(super) counts: Counts,
}

/// What became of a host.
pub(super) struct SideOutcome {
    pub(super) samples: Vec<Sample>,
    /// CPU seconds.
    pub(super) cpu: f64,
    /// Seconds that the replay took.
    pub(super) elapsed: f64,
    /// Cores that others used meanwhile.
    pub(super) others_cores: f64,
    /// In the order of its lanes.
    pub(super) lanes: Vec<Outcome>,
}

/// Nonces of each namespace, and when they came.
type Seen = HashMap<String, Vec<(i64, Instant)>>;

/// Replays all lanes of a host.
pub(super) async fn run(stage: &Stage, side: &Side) -> Result<SideOutcome> {
    let mut eye = stage.watch().await?;
    let mut seen = Seen::new();
    first(stage, side, &mut eye, &mut seen).await?;

    let pid = side.host.pid()?;
    let ours: Vec<u32> = stage.pids().into_iter().chain([pid]).collect();
    let before = counts(side).await?;
    let (others, cpu, start) = (Others::than(&ours)?, CpuTimes::of(&[pid])?, Instant::now());
    let mut samples = Vec::new();
    {
        let mut writes = pin!(write_all(stage, side, start));
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                written = &mut writes => {
                    written?;
                    break;
                }
                arrival = eye.next() => note(&mut seen, arrival?),
                _ = ticks.tick() => samples.push(sample(pid, start)?),
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while side.lanes.iter().any(|lane| !answered(lane, &seen)) {
        match timeout_at(deadline, eye.next()).await {
            Ok(arrival) => note(&mut seen, arrival?),
            Err(_) => break,
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let after = counts(side).await?;
    let counted = before.iter().zip(after).map(|(before, after)| after.since(before));
    Ok(SideOutcome {
        samples,
        cpu: CpuTimes::of(&[pid])?.since(&cpu).as_secs_f64(),
        elapsed,
        others_cores: others.cores()?,
        lanes: side.lanes.iter().zip(counted).map(|(lane, counts)| outcome(lane, &seen, counts)).collect(),
    })
}

/// The nonce of a lane's event. The first one is written before the replay, so that objects exist.
fn nonce(event: usize) -> i64 {
    i64::try_from(event).unwrap_or(i64::MAX - FIRST - 1) + FIRST + 1
}

const FIRST: i64 = 1;

/// Has every guest handle one event, which creates its objects.
async fn first(stage: &Stage, side: &Side, eye: &mut Eye, seen: &mut Seen) -> Result<()> {
    for lane in &side.lanes {
        ring::write(stage.space(), &lane.from, FIRST).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Some(lane) = side.lanes.iter().find(|lane| !seen.contains_key(&lane.to)) {
        let arrival = timeout_at(deadline, eye.next()).await;
        let missing = || format!("guest `{}` ({}) did not answer its first event", lane.guest, lane.program);
        note(seen, arrival.with_context(missing)??);
    }
    Ok(())
}

async fn write_all(stage: &Stage, side: &Side, start: Instant) -> Result<()> {
    let each = side.lanes.iter().map(|lane| async move {
        for (place, event) in lane.events.iter().enumerate() {
            sleep_until(start + *event).await;
            ring::write(stage.space(), &lane.from, nonce(place)).await?;
        }
        Result::<()>::Ok(())
    });
    let mut all: FuturesUnordered<_> = each.collect();
    while let Some(done) = all.next().await {
        done?;
    }
    Ok(())
}

fn note(seen: &mut Seen, Arrival { namespace, nonce, at }: Arrival) {
    seen.entry(namespace).or_default().push((nonce, at));
}

fn answered(lane: &Lane, seen: &Seen) -> bool {
    let last = lane.events.len().checked_sub(1).map_or(FIRST, nonce);
    seen.get(&lane.to).and_then(|arrivals| arrivals.last()).is_some_and(|(nonce, _)| *nonce >= last)
}

fn outcome(lane: &Lane, seen: &Seen, counts: Counts) -> Outcome {
    let arrivals = |namespace: &String| seen.get(namespace).map(Vec::as_slice).unwrap_or_default();
    let delays = delays(arrivals(&lane.from), arrivals(&lane.to));
    let written = arrivals(&lane.from).iter().filter(|(nonce, _)| *nonce > FIRST).count();
    Outcome { lost: written - delays.len(), delays, counts }
}

/// From each event to the first answer that has its nonce or a later one. Both are in the order of their coming.
fn delays(events: &[(i64, Instant)], answers: &[(i64, Instant)]) -> Vec<Duration> {
    let mut answers = answers.iter().peekable();
    let mut delays = Vec::new();
    for (nonce, at) in events.iter().filter(|(nonce, _)| *nonce > FIRST) {
        while answers.peek().is_some_and(|(answer, _)| answer < nonce) {
            answers.next();
        }
        let Some((_, answered)) = answers.peek() else { break };
        delays.push(answered.saturating_duration_since(*at));
    }
    delays
}

async fn counts(side: &Side) -> Result<Vec<Counts>> {
    let metrics = side.host.metrics().await?;
    Ok(side.lanes.iter().map(|lane| Counts::of(&metrics, &lane.guest)).collect())
}

fn sample(pid: u32, start: Instant) -> Result<Sample> {
    let memory = memory_of(&[pid])?;
    Ok(Sample { at: start.elapsed().as_secs_f64(), anonymous: memory.anonymous, rss: memory.rss })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_is_answered_by_its_own_nonce_or_a_later_one() {
        let start = Instant::now();
        let at = |list: &[(i64, u64)]| -> Vec<(i64, Instant)> {
            list.iter().map(|(nonce, time)| (*nonce, start + Duration::from_millis(*time))).collect()
        };
        let events = at(&[(1, 0), (2, 10), (3, 20), (4, 30), (5, 90)]);
        let milliseconds = |answers| -> Vec<u128> {
            delays(&events, &at(answers)).into_iter().map(|delay| delay.as_millis()).collect()
        };
        assert_eq!(milliseconds(&[(1, 5), (2, 15), (4, 50)]), [5, 30, 20], "the last has no answer");
        assert_eq!(milliseconds(&[(1, 5)]), [0_u128; 0]);
        assert_eq!(milliseconds(&[]), [0_u128; 0]);
    }
}
