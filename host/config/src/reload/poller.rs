//! Looking at files again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::time::sleep;

use super::POLL_INTERVAL;

/// What tells that a file is another one, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Not looked at yet.
    Unknown,
    Missing,
    File {
        device: u64,
        inode: u64,
        bytes: u64,
        modified: (i64, i64),
    },
}

impl Seen {
    fn now(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) => Self::File {
                device: metadata.dev(),
                inode: metadata.ino(),
                bytes: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            },
            Err(_) => Self::Missing,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Poller {
    files: BTreeMap<PathBuf, Seen>,
}

impl Poller {
    pub(super) fn watch(&mut self, files: BTreeSet<PathBuf>) {
        self.files.retain(|file, _| files.contains(file));
        for file in files {
            self.files.entry(file).or_insert(Seen::Unknown);
        }
    }

    pub(super) async fn next(&mut self) {
        while !self.look() {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether anything is not as it was.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.files {
            let now = Seen::now(file);
            changed |= std::mem::replace(seen, now) != now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_changes_or_goes_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let mut poller = Poller::default();
        poller.watch([file.clone()].into());
        assert!(poller.look(), "it may have changed before it was watched");
        assert!(!poller.look());
        fs::write(&file, "1").unwrap();
        assert!(poller.look());
        assert!(!poller.look());
        fs::write(&file, "22").unwrap();
        assert!(poller.look());
        fs::remove_file(&file).unwrap();
        poller.watch([file].into());
        assert!(poller.look());
        assert!(!poller.look());
    }
}
