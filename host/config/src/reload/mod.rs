//! Says when files may have changed, without saying how: the one who asks reads them again and compares.
//!
//! What is watched is directories, because editors, compilers and ConfigMap volumes replace files by renaming, and each
//! symbolic link on the way, because deployments swap links. Where the system gives no notifications (inotify limits, a
//! directory that may be searched and not read), the files are looked at every [`POLL_INTERVAL`] instead, and a warning says
//! so. Network file systems give none for changes made elsewhere; a restart of the host or a `touch` on this machine
//! helps there.

mod notifier;
mod poller;
mod walk;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use notifier::Notifier;
use poller::Poller;

/// Without notifications: how often files are looked at.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Writers come in bursts: a change is reported when it has been quiet for this long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... or at the latest after this time.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Watches a set of files.
#[derive(Debug)]
pub struct Reload {
    source: Source,
    /// Since when a change has been waiting to be reported. Kept here so that [`Reload::changed`] may be dropped.
    pending: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    Notifications(Notifier),
    Polling(Poller),
}

impl Default for Reload {
    fn default() -> Self {
        Self::new()
    }
}

impl Reload {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let source = match Notifier::new() {
            Ok(notifier) => Source::Notifications(notifier),
            Err(error) => polling(&error),
        };
        Self { source, pending: None }
    }

    /// Watches these files instead of the ones before. To be called after each reading, as symbolic links may lead
    /// elsewhere now. A change is reported once if anything is watched that was not before, since it may have changed
    /// between the reading and this call.
    pub fn watch(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let files: BTreeSet<PathBuf> = files.into_iter().collect();
        if let Source::Notifications(notifier) = &mut self.source
            && let Err(error) = notifier.watch(&files)
        {
            self.source = polling(&error);
        }
        if let Source::Polling(poller) = &mut self.source {
            poller.watch(files);
        }
    }

    /// Returns when something may have changed since the last return; many changes at once are one. May be dropped at
    /// any time without losing a change.
    pub async fn changed(&mut self) {
        let first = match self.pending {
            Some(first) => first,
            None => {
                self.source.next().await;
                *self.pending.insert(Instant::now())
            }
        };
        let latest = first + MAX_WAIT;
        while timeout_at((Instant::now() + QUIET).min(latest), self.source.next()).await.is_ok() {}
        self.pending = None;
    }

    /// Whether files are looked at again and again because there are no notifications.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        matches!(self.source, Source::Polling(_))
    }
}

impl Source {
    async fn next(&mut self) {
        match self {
            Self::Notifications(notifier) => notifier.next().await,
            Self::Polling(poller) => poller.next().await,
        }
    }
}

fn polling(error: &notify::Error) -> Source {
    tracing::warn!(
        %error,
        interval = ?POLL_INTERVAL,
        "no notifications of changed files; looking at them again and again instead. If it is a limit, raise the sysctl \
         `fs.inotify.max_user_instances` or `fs.inotify.max_user_watches`"
    );
    Source::Polling(Poller::default())
}

#[cfg(test)]
mod tests;
