//! What the demo prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::host::Memory;
use super::metrics::GuestState;
use super::ring::Lap;

/// A longer ring is summed up instead of listed.
const LISTED_GUESTS: usize = 20;

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

pub(super) fn guests(states: &[GuestState], memory: Memory) -> String {
    let mut text = String::from("\nGUEST       STATE\n");
    // Writing to a string cannot fail.
    if states.len() <= LISTED_GUESTS {
        for state in states {
            let _ = writeln!(text, "{:<11} {}", state.guest, state.state);
        }
    } else {
        let mut counts = BTreeMap::new();
        for state in states {
            *counts.entry(&state.state).or_insert(0) += 1;
        }
        for (state, count) in counts {
            let _ = writeln!(text, "{:<11} {state}", format!("{count} guests"));
        }
    }
    let _ = writeln!(
        text,
        "\nhost: {:.1} MiB resident, of which {:.1} MiB are not file-backed",
        mebibytes(memory.resident),
        mebibytes(memory.anonymous)
    );
    text
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
