//! A memory cgroup of our own, of version 1 or 2, where the machine allows it.

use std::fs;
use std::path::{Path, PathBuf};

/// What the names of groups begin with; the process id follows.
const PREFIX: &str = "wasm-operator-bench-";
/// Bytes of a MiB.
const MEBIBYTE: f64 = 1_048_576.0;

/// A cgroup, removed when dropped; its processes must have ended by then.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    directory: PathBuf,
}

impl MemoryGroup {
    /// Makes one, or says why there is none.
    pub(crate) fn create() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("no cgroups: {error}"))?;
        let name = format!("{PREFIX}{}", std::process::id());
        let mut why = "no memory controller is mounted at /sys/fs/cgroup".to_owned();
        for parent in parents(Path::new("/sys/fs/cgroup"), &own) {
            remove_leftovers(&parent);
            let directory = parent.join(&name);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) => {
                    why = format!("cannot make `{}`: {error}", directory.display());
                    continue;
                }
            }
            let group = Self { directory };
            match group.working_set() {
                Some(_) => return Ok(group),
                None => why = format!("`{}` has no memory controller", parent.display()),
            }
        }
        Err(why)
    }

    /// A command that moves itself into the group and executes what follows it, so that nothing is charged elsewhere.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let script = r#"echo $$ >"$0" && exec "$@""#;
        let processes = self.directory.join("cgroup.procs").display().to_string();
        ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned(), processes].into()
    }

    /// MiB in use without what the kernel could drop at once, as the kubelet reckons a pod's memory: usage less inactive file
    /// pages.
    pub(crate) fn working_set(&self) -> Option<f64> {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).ok();
        let usage = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
        working_set(&usage, &read("memory.stat")?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What is left has no process and no limit.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// A run that was killed could not remove its group.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Only an empty group can be removed, so nothing that runs is touched.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where a group can be made: below our own of version 1; in version 2 below the root, because a group with processes may not
/// hand controllers on.
fn parents(mount: &Path, own: &str) -> Vec<PathBuf> {
    let mut parents = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "memory") {
            parents.insert(0, mount.join("memory").join(path.trim_start_matches('/')));
        } else if number == "0" {
            parents.push(mount.to_owned());
        }
    }
    parents
}

fn working_set(usage: &str, stat: &str) -> Option<f64> {
    let value = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok())
    };
    // Version 1 has the sum over the group and those below it under a name of its own.
    let inactive = value("total_inactive_file").or_else(|| value("inactive_file"))?;
    let usage: f64 = usage.trim().parse().ok()?;
    Some((usage - inactive).max(0.0) / MEBIBYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let mount = Path::new("/m");
        assert_eq!(parents(mount, "5:cpu:/x\n4:memory:/a/b\n0::/\n"), [mount.join("memory/a/b"), mount.to_owned()]);
        assert_eq!(parents(mount, "0::/user.slice/s\n"), [mount.to_owned()]);
        assert!(parents(mount, "").is_empty());
    }

    #[test]
    fn groups_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = format!("{PREFIX}{}", std::process::id());
        // Above the largest possible process id.
        for name in [own.as_str(), "wasm-operator-bench-4294967295", "somebody-else"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_leftovers(parent.path());
        assert!(parent.path().join(own).exists() && parent.path().join("somebody-else").exists());
        assert!(!parent.path().join("wasm-operator-bench-4294967295").exists());
    }

    #[test]
    fn the_working_set_leaves_out_inactive_file_pages() {
        let stat = "inactive_file 1048576\ntotal_inactive_file 2097152\n";
        assert_eq!(working_set("4194304\n", stat), Some(2.0));
        assert_eq!(working_set("4194304\n", "inactive_file 1048576\n"), Some(3.0));
        assert_eq!(working_set("4194304", ""), None);
        assert_eq!(working_set("max", stat), None);
    }
}
