//! What the demos print of the host.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::host::Memory;
use super::metrics::GuestState;

/// A longer ring is summed up instead of listed.
const LISTED_GUESTS: usize = 20;

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

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
