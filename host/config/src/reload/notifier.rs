//! Notifications of the system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::walk::{Interests, interests};

/// Device and inode: the same path may be another directory tomorrow.
type Identity = (u64, u64);

#[derive(Debug)]
pub(super) struct Notifier {
    watcher: RecommendedWatcher,
    interests: Arc<Mutex<Interests>>,
    watched: BTreeMap<PathBuf, Identity>,
    /// One place: that something changed is all there is to say.
    tick: mpsc::Sender<()>,
    ticks: mpsc::Receiver<()>,
}

impl Notifier {
    pub(super) fn new() -> Result<Self, notify::Error> {
        let (tick, ticks) = mpsc::channel(1);
        let interests = Arc::new(Mutex::new(Interests::new()));
        let (sender, shared) = (tick.clone(), Arc::clone(&interests));
        let watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| {
            let concerns_us = match &event {
                Ok(event) => concerns(event, &shared.lock()),
                // Better one look too many.
                Err(_) => true,
            };
            if concerns_us {
                // Full: the tick is already there.
                let _ = sender.try_send(());
            }
        })?;
        Ok(Self { watcher, interests, watched: BTreeMap::new(), tick, ticks })
    }

    pub(super) fn watch(&mut self, files: &BTreeSet<PathBuf>) -> Result<(), notify::Error> {
        let wanted = interests(files);
        self.watched.retain(|directory, identity| {
            let stays = wanted.contains_key(directory) && identity_of(directory) == Some(*identity);
            if !stays {
                // Fails when the directory is gone, and with it the watch.
                let _ = self.watcher.unwatch(directory);
            }
            stays
        });
        let directories: Vec<PathBuf> = wanted.keys().cloned().collect();
        *self.interests.lock() = wanted;
        let mut is_new = false;
        for directory in directories {
            if self.watched.contains_key(&directory) {
                continue;
            }
            let Some(identity) = identity_of(&directory) else { continue };
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory, identity);
                    is_new = true;
                }
                // Gone since; the event of its going leads to the next call of this function.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if is_new {
            let _ = self.tick.try_send(());
        }
        Ok(())
    }

    pub(super) async fn next(&mut self) {
        // Never closed: `self` holds a sender.
        let _ = self.ticks.recv().await;
    }
}

fn identity_of(directory: &Path) -> Option<Identity> {
    fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

pub(super) fn concerns(event: &Event, interests: &Interests) -> bool {
    if event.need_rescan() {
        return true;
    }
    // Reading the files must not look like a change of them.
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    event.paths.iter().any(|path| {
        interests.contains_key(path)
            || path
                .parent()
                .and_then(|parent| interests.get(parent))
                .is_some_and(|names| path.file_name().is_some_and(|name| names.contains(name)))
    })
}
