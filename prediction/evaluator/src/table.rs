//! The tables of costs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

use crate::percentile::percentile;
use crate::replay::{Policy, Replayed, Setting, Tally};

/// Says what is assumed.
pub(crate) fn head(out: &mut impl Write, setting: &Setting) -> io::Result<()> {
    let Setting { costs, price } = setting;
    write!(out, "A cold wake takes {:?}, a warm one {:?}. ", costs.cold_wake, costs.warm_wake)?;
    writeln!(out, "A resident guest holds {}.", ByteSize(costs.bytes))?;
    write!(out, "A second of delay is worth {} for a second, ", ByteSize(price.delay))?;
    write!(out, "a second of reloading {}. ", ByteSize(price.work))?;
    match price.break_even(costs) {
        Some(age) => writeln!(out, "A cold wake costs as much as {:.1} s of residency.\n", age.as_secs_f64()),
        None => writeln!(out, "Residency costs nothing.\n"),
    }
}

/// The table of one guest.
pub(crate) fn guest(out: &mut impl Write, path: &Path, guest: &Replayed) -> io::Result<()> {
    write!(out, "{}", path.display())?;
    if let Some(name) = &guest.guest {
        write!(out, ", guest `{name}`")?;
    }
    let mut gaps: Vec<_> = guest.gaps.iter().map(|(_, gap)| *gap).collect();
    gaps.sort_unstable();
    let gap = |share| percentile(&gaps, share).as_secs_f64();
    write!(out, ": {} events in {}, ", gaps.len() + 1, span(guest.span))?;
    writeln!(out, "gaps p5 {:.1} s, p50 {:.1} s, p95 {:.1} s", gap(0.05), gap(0.5), gap(0.95))?;
    rows(out, &guest.tallies, guest.span)?;
    write!(out, "Rules in force:")?;
    let mut ruled: Vec<_> = guest.ruled.iter().collect();
    ruled.sort_by_key(|(_, gaps)| std::cmp::Reverse(**gaps));
    for (rule, ruled) in ruled {
        write!(out, " {rule} {:.1} %", percent(*ruled as f64, gaps.len() as f64))?;
    }
    writeln!(out, "\n")
}

/// The table of all guests of a trace together.
pub(crate) fn total(out: &mut impl Write, path: &Path, guests: &[Replayed]) -> io::Result<()> {
    let mut tallies: BTreeMap<Policy, Tally> = BTreeMap::new();
    for (policy, tally) in guests.iter().flat_map(|guest| &guest.tallies) {
        tallies.entry(*policy).or_default().merge(tally);
    }
    writeln!(out, "{}, all {} guests", path.display(), guests.len())?;
    rows(out, &tallies, guests.iter().map(|guest| guest.span).sum())?;
    writeln!(out)
}

fn rows(out: &mut impl Write, tallies: &BTreeMap<Policy, Tally>, span: Duration) -> io::Result<()> {
    writeln!(
        out,
        "{:<16} {:>12} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "policy", "cost", "misses", "ready", "wasted", "resident", "delay p50", "p99"
    )?;
    for (policy, tally) in tallies {
        let events = tally.delays.len() as f64;
        let mut delays = tally.delays.clone();
        delays.sort_unstable();
        writeln!(
            out,
            "{:<16} {:>9.3} ms {:>6.1} % {:>8} {:>8} {:>8.2} % {:>7.1} ms {:>7.1} ms",
            policy.name(),
            tally.cost * 1000.0 / events,
            percent(tally.misses as f64, events),
            tally.prepared,
            tally.wasted,
            percent(tally.resident.as_secs_f64(), span.as_secs_f64()),
            percentile(&delays, 0.5).as_secs_f64() * 1000.0,
            percentile(&delays, 0.99).as_secs_f64() * 1000.0,
        )?;
    }
    Ok(())
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// To the second, as `1h 2m 3s`.
fn span(span: Duration) -> String {
    format!("{:#}", SignedDuration::from_secs(span.as_secs().try_into().unwrap_or(i64::MAX)))
}
