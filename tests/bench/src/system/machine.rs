//! The machine: what it is, and what others use of it.

use std::time::Duration;

use harness::{Context as _, Result};
use serde::Serialize;
use tokio::time::Instant;

use super::process::cpu_of;

/// Linux counts CPU time in `/proc/stat` in these parts of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a reader has to know to compare.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// Processor model.
    pub(crate) processor: String,
    /// Processors that this program may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory: u64,
    /// Kernel release.
    pub(crate) kernel: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let kibibytes = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: kibibytes.map_or(0, |kibibytes: u64| kibibytes / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

/// What processes other than ours use, from one moment on.
pub(crate) struct Others {
    ours: Vec<u32>,
    start: Instant,
    busy: f64,
    own: Duration,
}

impl Others {
    /// From now on; `ours` are the processes that belong to the measurement.
    pub(crate) fn than(ours: &[u32]) -> Result<Self> {
        let mut ours = ours.to_vec();
        ours.push(std::process::id());
        Ok(Self { own: cpu_of(&ours)?, busy: busy()?, start: Instant::now(), ours })
    }

    /// Cores that others have used since, in the mean. The kernel's own work for nobody in particular counts as theirs.
    pub(crate) fn cores(&self) -> Result<f64> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let busy = busy()? - self.busy;
        let own = cpu_of(&self.ours)?.saturating_sub(self.own).as_secs_f64();
        Ok(((busy - own) / elapsed).max(0.0))
    }
}

/// Seconds that all processors have been busy.
fn busy() -> Result<f64> {
    busy_of(&std::fs::read_to_string("/proc/stat")?).context("an odd `/proc/stat`")
}

/// user, nice, system, irq, softirq and steal; not idle, iowait, and not guest, which user has already.
fn busy_of(stat: &str) -> Option<f64> {
    let fields: Vec<f64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    let sum = [0, 1, 2, 5, 6, 7].into_iter().map(|index| fields.get(index)).sum::<Option<f64>>()?;
    Some(sum / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_busy_and_guest_time_counts_once() {
        let stat = "cpu  100 20 30 9999 888 4 5 6 77 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_of(stat), Some(1.65));
        assert_eq!(busy_of("cpu  1 2 3\n"), None);
        assert_eq!(busy_of(""), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU @ 2: fast"));
        assert_eq!(field(text, "model"), None);
        assert!(Machine::this().memory > 0);
    }
}
