//! What a process uses, from `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Linux reports CPU times in these parts of a second, on every architecture that we run on.
const TICKS_PER_SECOND: u64 = 100;

/// Memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Pages in memory, shared ones included.
    pub resident: u64,
    /// The same, with each shared page divided by the number of processes that map it.
    pub proportional: u64,
    /// Of these, pages that no file backs.
    pub anonymous: u64,
}

/// The memory of a process.
pub fn memory_of(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("no `{name}` in `{path}`"))
    };
    Ok(Memory { resident: value("Rss")?, proportional: value("Pss")?, anonymous: value("Anonymous")? })
}

/// CPU time that a process has used, in user and kernel mode.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')').context("an odd stat file")?.1.split_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("an odd stat file");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / TICKS_PER_SECOND))
}
