//! The directory of one control plane: data, certificates, kubeconfigs, logs.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = "wasm-operator-controlplane-";
const LOCK: &str = "lock";

/// A directory that is removed with this value.
#[derive(Debug)]
pub(crate) struct WorkDir {
    directory: TempDir,
    // The kernel lets go of it however we end; that is how a later run knows a directory that nobody uses any more.
    _lock: File,
}

impl WorkDir {
    pub(crate) fn create() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        // `tempfile` makes it with rights for us alone: it holds keys.
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has its name, so that nobody sees it unlocked.
        let unnamed = directory.path().join("unlocked");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(&unnamed, directory.path().join(LOCK))?;
        for name in ["pki", "etcd", "log"] {
            fs::create_dir(directory.path().join(name))?;
        }
        Ok(Self { directory, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what killed runs left behind. Failures are those of another user's directory, and no reason not to start.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // A directory without a lock file is being made at this moment.
        if ours && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
