//! What is printed of a lap.

use std::time::Duration;

use super::laps::Lap;

pub(super) fn lap(number: usize, lap: &Lap) -> String {
    let mut hops = lap.hops.clone();
    hops.sort();
    let median = hops.get(hops.len() / 2).copied().unwrap_or_default();
    let slowest = hops.last().copied().unwrap_or_default();
    format!(
        "lap {number}: nonce {} went round {} guests in {:.1} ms; one hop: median {:.1} ms, slowest {:.1} ms",
        lap.nonce,
        hops.len() + 1,
        milliseconds(lap.total),
        milliseconds(median),
        milliseconds(slowest)
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
