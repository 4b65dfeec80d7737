//! The part of a stream that serves watches of guests: who watches, and the history from which a watch can begin.

use std::sync::Arc;

use wasm_operator_core::history::{Entry, Expired, Gap, History, inferred};
use wasm_operator_core::object::{Change, ResourceVersion};

use super::watcher::{WatchEnd, Watcher, Watchers};

/// Kept up by the stream under its lock.
#[derive(Default)]
pub(crate) struct Followers {
    watchers: Watchers,
    /// From the first list on after somebody wanted it: streams that nobody watches this way remember nothing.
    history: Option<History>,
    is_wanted: bool,
}

impl Followers {
    /// Remembers from now on. `position`: that of the store, if it has listed.
    pub(crate) fn want_history(&mut self, position: Option<&ResourceVersion>) {
        self.is_wanted = true;
        if self.history.is_none() {
            self.history = position.map(|position| History::new(position.clone()));
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    pub(crate) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    pub(crate) fn add(&mut self, watcher: Arc<Watcher>) -> u64 {
        self.watchers.add(watcher)
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.watchers.remove(id);
    }

    /// An object was deleted at this version.
    pub(crate) fn deleted(&mut self, change: Change, version: ResourceVersion) {
        let entry = Entry { version, old: change.old, new: None, inferred: false };
        self.watchers.tell(std::slice::from_ref(&entry));
        if let Some(history) = &mut self.history {
            history.push(entry);
        }
    }

    /// An object was added or modified. `from` is the position before.
    pub(crate) fn changed(&mut self, changes: Vec<Change>, from: Option<&ResourceVersion>, version: &ResourceVersion) {
        match from.and_then(|from| inferred(changes, from, version)) {
            Some(entries) => {
                self.watchers.tell(&entries);
                if let Some(history) = &mut self.history {
                    entries.into_iter().for_each(|entry| history.push(entry));
                }
            }
            None => self.begin_anew(version),
        }
    }

    /// A list replaced everything.
    pub(crate) fn relisted(&mut self, changes: Vec<Change>, from: Option<ResourceVersion>, to: &ResourceVersion) {
        let Some(history) = &mut self.history else { return self.begin_anew(to) };
        let gap = from.map(|from| Gap { from, to: to.clone() });
        let Some((gap, entries)) = gap.and_then(|gap| inferred(changes, &gap.from, to).map(|entries| (gap, entries)))
        else {
            return self.begin_anew(to);
        };
        self.watchers.expire_within(&gap, || format!("the resource version was not reached before the list at {to}"));
        self.watchers.tell(&entries);
        history.relisted(entries, gap);
    }

    /// The kind is gone; `position` is the last that is known of it.
    pub(crate) fn gone(&mut self, changes: Vec<Change>, position: Option<&ResourceVersion>) {
        if let Some(position) = position {
            let entry =
                |change: Change| Entry { version: position.clone(), old: change.old, new: None, inferred: true };
            self.watchers.tell(&changes.into_iter().map(entry).collect::<Vec<_>>());
        }
        self.watchers.end(&WatchEnd::Closed);
        self.history = None;
    }

    /// There is another history than the one that was told: nobody can go on.
    fn begin_anew(&mut self, position: &ResourceVersion) {
        if self.is_wanted {
            let history = History::new(position.clone());
            self.watchers.end(&WatchEnd::Expired(format!("the history begins anew at resource version {position}")));
            self.history = Some(history);
        }
    }

    /// That this version cannot be resumed from, in the server's words.
    pub(crate) fn expired(&self, version: &ResourceVersion) -> Option<Expired> {
        self.history.as_ref().map(|history| history.expired(version))
    }
}

#[cfg(test)]
mod tests;
