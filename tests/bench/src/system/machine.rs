//! The machine: what it is, and what others use of it.

use harness::{Context as _, Result};
use serde::Serialize;
use tokio::time::Instant;

use super::process::CpuTimes;

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
    idle: Idle,
    own: CpuTimes,
}

impl Others {
    /// From now on; `ours` are the processes that belong to the measurement.
    pub(crate) fn than(ours: &[u32]) -> Result<Self> {
        let mut ours = ours.to_vec();
        ours.push(std::process::id());
        Ok(Self { own: CpuTimes::of(&ours)?, idle: Idle::now()?, start: Instant::now(), ours })
    }

    /// Cores that others have used since, in the mean. The kernel's own work for nobody in particular counts as theirs.
    pub(crate) fn cores(&self) -> Result<f64> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let idle = Idle::now()?;
        let busy = idle.processors * elapsed - (idle.seconds - self.idle.seconds);
        let own = CpuTimes::of(&self.ours)?.since(&self.own).as_secs_f64();
        Ok(((busy - own) / elapsed).max(0.0))
    }
}

/// Time in which processors had nothing to do. A tickless kernel measures it, while it samples the time in which they were busy,
/// which misses work that is shorter than a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Idle {
    /// Summed over the processors.
    seconds: f64,
    processors: f64,
}

impl Idle {
    fn now() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?).context("an odd `/proc/stat`")
    }

    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<f64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect();
        // Waiting for a disk is idle as well.
        let ticks = fields.get(3)? + fields.get(4)?;
        let processors = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
        Some(Self { seconds: ticks / TICKS_PER_SECOND, processors: processors as f64 })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn idle_is_idle_and_waiting_for_disks_over_all_processors() {
        let stat = "cpu  100 20 30 9000 800 4 5 6 77 0\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 1\n";
        assert_eq!(Idle::parse(stat), Some(Idle { seconds: 98.0, processors: 2.0 }));
        assert_eq!(Idle::parse("cpu  1 2 3\n"), None);
        assert_eq!(Idle::parse(""), None);
    }

    #[tokio::test]
    async fn a_busy_neighbour_is_seen_and_we_are_not() {
        // It ends with this test, however that ends.
        let script = "while kill -0 $PPID; do :; done";
        let mut neighbour = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (others, without) = (Others::than(&[]).unwrap(), Others::than(&[neighbour.id()]).unwrap());
        // Until it has used enough to be told from what else runs.
        while CpuTimes::of(&[neighbour.id()]).unwrap().since(&CpuTimes::default()) < Duration::from_millis(100) {
            std::thread::yield_now();
        }
        let (with, without) = (others.cores().unwrap(), without.cores().unwrap());
        neighbour.kill().unwrap();
        neighbour.wait().unwrap();
        assert!(with > without, "{with} {without}");
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU @ 2: fast"));
        assert_eq!(field(text, "model"), None);
        assert!(Machine::this().memory > 0);
    }
}
