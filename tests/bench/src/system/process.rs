//! Memory and CPU time of processes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Context as _, Result};
use serde::Serialize;

/// Memory of all processes of a variant, in MiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// Sum of `Rss`: what separate machines or separate images would hold.
    pub(crate) rss: f64,
    /// Sum of `Pss`: pages that several processes map are divided among them.
    pub(crate) pss: f64,
    /// Sum of `Anonymous`: pages that no file backs.
    pub(crate) anonymous: f64,
    /// Working set of the cgroup that the processes were started in, where the machine has one for us.
    pub(crate) cgroup: Option<f64>,
}

impl Memory {
    /// The larger of each figure.
    #[must_use]
    pub(crate) fn most(&self, other: &Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
            anonymous: self.anonymous.max(other.anonymous),
            cgroup: [self.cgroup, other.cgroup].into_iter().flatten().reduce(f64::max),
        }
    }
}

/// KiB of a MiB.
const KIBIBYTES: f64 = 1024.0;

/// The sum over these processes, from `smaps_rollup`.
pub(crate) fn memory_of(pids: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let memory = harness::memory_of(*pid)?;
        sum.rss += memory.resident as f64 / KIBIBYTES;
        sum.pss += memory.proportional as f64 / KIBIBYTES;
        sum.anonymous += memory.anonymous as f64 / KIBIBYTES;
    }
    Ok(sum)
}

/// Reads the files without a name that these processes have open, so that they are in the page cache: in the host, what hibernated
/// guests have on disk. Returns how many bytes that were.
pub(crate) fn warm_page_cache(pids: &[u32]) -> Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let directory = format!("/proc/{pid}/fd");
        let descriptors = std::fs::read_dir(&directory).with_context(|| format!("process {pid} is gone"))?;
        for path in descriptors.flatten().map(|descriptor| descriptor.path()) {
            // A descriptor may be closed while we look.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if metadata.is_file() && metadata.nlink() == 0 {
                let mut file = File::open(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
                bytes += std::io::copy(&mut file, &mut std::io::sink())?;
            }
        }
    }
    Ok(bytes)
}

/// CPU time of each thread of some processes, in nanoseconds.
///
/// `utime` and `stime` of `/proc/<pid>/stat` count in parts of 10 ms, which is more than one of a hundred processes uses in a whole
/// lap. So this is the first field of each thread's `schedstat`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTimes(HashMap<PathBuf, u64>);

impl CpuTimes {
    /// So far.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut times = HashMap::new();
        for pid in pids {
            let directory = format!("/proc/{pid}/task");
            let threads = std::fs::read_dir(&directory).with_context(|| format!("process {pid} is gone"))?;
            for thread in threads.flatten() {
                // A thread may end while we look.
                let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                if let Some(time) = on_cpu(&text) {
                    times.insert(thread.path(), time);
                }
            }
        }
        Ok(Self(times))
    }

    /// The sum of what came after `before`. A thread that ended in between is left out, one that began in between is not.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let each = self.0.iter().map(|(thread, after)| match before.0.get(thread) {
            Some(before) if before <= after => after - before,
            // Another thread of the same number.
            _ => *after,
        });
        Duration::from_nanos(each.sum())
    }
}

fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_figures_are_plausible() {
        let pid = std::process::id();
        let memory = memory_of(&[pid]).unwrap();
        assert!(memory.rss >= memory.anonymous && memory.anonymous > 0.1 && memory.pss <= memory.rss, "{memory:?}");
        assert!(CpuTimes::of(&[pid]).unwrap().since(&CpuTimes::default()) > Duration::ZERO);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_and_not_zero() {
        // Above the largest possible process id.
        let nobody = u32::MAX;
        assert!(memory_of(&[nobody]).is_err());
        assert!(CpuTimes::of(&[nobody]).is_err());
    }

    #[test]
    fn files_without_a_name_are_read_and_others_are_not() {
        let pid = std::process::id();
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), vec![1; 8 << 20]).unwrap();
        let before = warm_page_cache(&[pid]).unwrap();
        let mut unlinked = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut unlinked, &vec![1; 1 << 20]).unwrap();
        unlinked.sync_all().unwrap();
        let read = warm_page_cache(&[pid]).unwrap() - before;
        assert!((1 << 20..2 << 20).contains(&read), "{read}");
        assert!(warm_page_cache(&[u32::MAX]).is_err());
    }

    #[test]
    fn a_thread_that_has_ended_takes_nothing_from_the_others() {
        let times =
            |list: &[(&str, u64)]| CpuTimes(list.iter().map(|(thread, time)| (PathBuf::from(thread), *time)).collect());
        let before = times(&[("stays", 100), ("ends", 5_000), ("replaced", 70)]);
        let after = times(&[("stays", 130), ("new", 7), ("replaced", 20)]);
        assert_eq!(after.since(&before), Duration::from_nanos(30 + 7 + 20));
        assert_eq!(before.since(&before), Duration::ZERO);
    }

    #[test]
    fn schedstat_begins_with_nanoseconds() {
        assert_eq!(on_cpu("4640242 17 1\n"), Some(4_640_242));
        assert_eq!(on_cpu(""), None);
    }
}
