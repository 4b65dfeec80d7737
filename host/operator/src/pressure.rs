//! Memory pressure: how much the host holds beside what it may, and what that means for idle guests.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::scheduler::Scheduler;

/// How often memory is looked at: an instance is dropped in far less, and the look costs some ten microseconds.
const INTERVAL: Duration = Duration::from_secs(1);
/// From this part of the budget on, memory gets dearer.
const DEAR: f64 = 0.75;
/// Beyond this part of the budget, idle guests are put to sleep at once. The rest is for those that run.
const FULL: f64 = 0.9;
/// How many times its usual price memory is worth at [`FULL`].
const DEAREST: f64 = 10.0;

/// What the host may hold, and where to read what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    bytes: u64,
    held: Held,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    /// Anonymous memory of the process.
    Process,
    /// The working set of the control group in this directory: what is charged, without page cache that can go at once.
    Group { directory: PathBuf, current: &'static str },
}

impl Budget {
    /// The budget that was asked for, or else the control group's limit; None without any.
    pub(crate) fn new(asked: Option<u64>) -> Option<Self> {
        match asked {
            Some(bytes) => Some(Self { bytes, held: Held::Process }),
            None => Self::of_group(),
        }
    }

    /// In a container the group's own files are at the root of the mount, of either version.
    fn of_group() -> Option<Self> {
        let group = |directory: &str, limit: &str, current| {
            let directory = PathBuf::from(directory);
            let bytes = limit_of(&fs::read_to_string(directory.join(limit)).ok()?)?;
            Some(Self { bytes, held: Held::Group { directory, current } })
        };
        group("/sys/fs/cgroup", "memory.max", "memory.current")
            .or_else(|| group("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    }

    fn held(&self) -> Option<u64> {
        match &self.held {
            Held::Process => kib_of(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:"),
            Held::Group { directory, current } => {
                let used: u64 = fs::read_to_string(directory.join(current)).ok()?.trim().parse().ok()?;
                let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
                Some(used.saturating_sub(field_of(&stat, "inactive_file").unwrap_or(0)))
            }
        }
    }

    /// Has the scheduler drop idle guests while memory is short. Never returns.
    pub(crate) async fn watch(self, scheduler: Arc<Scheduler>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = (0, 1.0);
        loop {
            ticks.tick().await;
            let Some(held) = self.held() else { continue };
            let now = assess(held, self.bytes);
            if now.0 > 0 && last.0 == 0 {
                info!(
                    held,
                    budget = self.bytes,
                    "memory is short: idle guests are put to sleep, the least useful first"
                );
            }
            if is_news(last, now) {
                scheduler.tell(|dispatcher, _| dispatcher.press(now.0, now.1));
            }
            last = now;
        }
    }
}

/// Whether the scheduler has to be told: of each change, and again as long as there is something to give back.
fn is_news(last: (u64, f32), now: (u64, f32)) -> bool {
    now.0 > 0 || now != last
}

/// What is to be given back, and how many times its usual price memory is worth.
fn assess(held: u64, budget: u64) -> (u64, f32) {
    let budget = budget.max(1) as f64;
    let part = held as f64 / budget;
    let excess = (held as f64 - budget * FULL).max(0.0) as u64;
    let dear = ((part - DEAR) / (FULL - DEAR)).clamp(0.0, 1.0);
    (excess, (1.0 + (DEAREST - 1.0) * dear) as f32)
}

/// A group's limit; None for none. Version 1 says "none" with a number close to the largest one.
fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

fn kib_of(status: &str, line: &str) -> Option<u64> {
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The field of that name, or of version 1's whole tree (`total_...`).
fn field_of(stat: &str, name: &str) -> Option<u64> {
    stat.lines().rev().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key.strip_prefix("total_").unwrap_or(key) == name).then(|| value.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_gets_dearer_before_it_runs_out() {
        assert_eq!(assess(0, 1000), (0, 1.0));
        assert_eq!(assess(750, 1000), (0, 1.0));
        let (excess, pressure) = assess(825, 1000);
        assert_eq!(excess, 0);
        assert!((pressure - 5.5).abs() < 0.01, "{pressure}");
        assert_eq!(assess(900, 1000), (0, 10.0));
        assert_eq!(assess(1000, 1000), (100, 10.0));
        assert_eq!(assess(u64::MAX, 0).1, 10.0);
    }

    #[test]
    fn each_change_of_the_pressure_is_told_and_what_does_not_change_is_not() {
        let parts = [500, 740, 760, 890, 890, 950, 950, 800, 500, 500];
        let mut last = (0, 1.0);
        let told = parts.map(|held| {
            let now = assess(held, 1000);
            is_news(std::mem::replace(&mut last, now), now)
        });
        assert_eq!(told, [false, false, true, true, false, true, true, true, true, false]);
    }

    #[test]
    fn limits_and_fields_of_both_versions_are_read() {
        assert_eq!(limit_of("268435456\n"), Some(256 << 20));
        assert_eq!(limit_of("max\n"), None);
        assert_eq!(limit_of("9223372036854771712\n"), None);
        assert_eq!(field_of("anon 5\ninactive_file 7\nactive_file 9\n", "inactive_file"), Some(7));
        assert_eq!(field_of("inactive_file 7\ntotal_inactive_file 8\n", "inactive_file"), Some(8));
        assert_eq!(kib_of("RssAnon:\t    12 kB\n", "RssAnon:"), Some(12 << 10));
    }

    #[test]
    fn the_process_knows_what_it_holds() {
        let budget = Budget::new(Some(1)).unwrap();
        assert!(budget.held().unwrap() > 100_000);
    }
}
