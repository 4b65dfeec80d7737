//! Memory of the node's cgroups, of version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Context as _, Result};
use serde::Serialize;

/// Bytes of a MiB.
const MEBIBYTE: f64 = 1_048_576.0;
/// All pods, with their pause containers. The kubelet makes it.
const PODS: &str = "kubepods";
/// What containerd runs beside each pod. `devel/node/up` makes it.
const SHIMS: &str = "wasm-operator-shims";

/// Memory in MiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Used {
    /// Charged to the pods' cgroups, file pages included.
    pub(crate) pods: f64,
    /// The same without inactive file pages: what the kubelet and `kubectl top` call the working set.
    pub(crate) pods_working_set: f64,
    /// Charged to the shims' cgroup.
    pub(crate) shims: f64,
}

impl Used {
    /// What the owner of the node pays.
    pub(crate) fn sum(&self) -> f64 {
        self.pods + self.shims
    }

    /// Without what was there before.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            pods: self.pods - before.pods,
            pods_working_set: self.pods_working_set - before.pods_working_set,
            shims: self.shims - before.shims,
        }
    }

    /// Now.
    pub(crate) fn now() -> Result<Self> {
        let hierarchy = hierarchy();
        let pods = hierarchy.join(PODS);
        let usage = usage(&pods)?;
        let stat = fs::read_to_string(pods.join("memory.stat")).context("the memory of the pods")?;
        let inactive = inactive_file(&stat).context("an odd `memory.stat`")?;
        Ok(Self {
            pods: usage,
            pods_working_set: (usage - inactive).max(0.0),
            shims: self::usage(&hierarchy.join(SHIMS))?,
        })
    }
}

/// The most that each pod has had charged since it began, summed.
pub(crate) fn peak() -> Result<f64> {
    let mut sum = 0.0;
    for pod in pods(&hierarchy().join(PODS))? {
        sum += first_of(&pod, &["memory.peak", "memory.max_usage_in_bytes"])?;
    }
    Ok(sum)
}

/// All processes of pods and shims.
pub(crate) fn processes() -> Result<Vec<u32>> {
    let mut processes = Vec::new();
    let mut open = [PODS, SHIMS].map(|group| hierarchy().join(group)).to_vec();
    while let Some(group) = open.pop() {
        // A container may end while we look.
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        processes.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        open.extend(below(&group));
    }
    Ok(processes)
}

fn hierarchy() -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() { root.to_owned() } else { root.join("memory") }
}

fn usage(group: &Path) -> Result<f64> {
    first_of(group, &["memory.current", "memory.usage_in_bytes"])
}

fn first_of(group: &Path, files: &[&str]) -> Result<f64> {
    let text = files.iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
    let bytes = text.and_then(|text| text.trim().parse::<f64>().ok());
    Ok(bytes.with_context(|| format!("no {} in `{}`", files.join(" or "), group.display()))? / MEBIBYTE)
}

/// In MiB. Version 1 has the sum over a group and those below it under a name of its own.
fn inactive_file(stat: &str) -> Option<f64> {
    let value = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok())
    };
    Some(value("total_inactive_file").or_else(|| value("inactive_file"))? / MEBIBYTE)
}

/// The groups of single pods: right below, or below that of their class (`burstable`, `besteffort`).
fn pods(all: &Path) -> Result<Vec<PathBuf>> {
    let is_pod = |group: &PathBuf| group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod"));
    let groups = below(all);
    Ok(groups.iter().cloned().chain(groups.iter().flat_map(|class| below(class))).filter(is_pod).collect())
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inactive_file_pages_are_those_of_the_whole_tree() {
        assert_eq!(inactive_file("inactive_file 1048576\ntotal_inactive_file 2097152\n"), Some(2.0));
        assert_eq!(inactive_file("anon 5\ninactive_file 1048576\n"), Some(1.0));
        assert_eq!(inactive_file("anon 5\n"), None);
    }

    #[test]
    fn pods_are_found_in_each_class_and_containers_are_not_taken_for_pods() {
        let root = tempfile::tempdir().unwrap();
        for group in ["podA/pause", "burstable/podB/container", "besteffort"] {
            fs::create_dir_all(root.path().join(group)).unwrap();
        }
        let mut found: Vec<_> = pods(root.path()).unwrap();
        found.sort();
        assert_eq!(found, ["burstable/podB", "podA"].map(|pod| root.path().join(pod)));
    }

    #[test]
    fn both_versions_are_read_and_a_missing_group_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(usage(root.path()).is_err());
        fs::write(root.path().join("memory.usage_in_bytes"), "1048576\n").unwrap();
        assert_eq!(usage(root.path()).unwrap(), 1.0);
        fs::write(root.path().join("memory.current"), "max\n").unwrap();
        assert!(usage(root.path()).is_err());
    }
}
