//! Watches that the host itself serves: what happened on a stream, for those who resume, and what a watcher has not taken
//! yet.
//!
//! A [`History`] is what the API server calls its watch cache: the last events of a stream, so that a watch can begin at a
//! version that was current a while ago. A [`Backlog`] is one watcher's: it keeps what happens while the watcher does not
//! read, as one state per object.
//!
//! Versions are those of the upstream. What is found by comparing two lists has lost its version: [`inferred`] gives it
//! one, and the [`Gap`] between the lists says who cannot resume.

mod backlog;
mod relist;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::object::{Object, ResourceVersion};

pub use backlog::{Backlog, EventType, Item, WatchEvent};
pub use relist::inferred;

/// Events that a stream remembers. Default 1,024: those who come from a list or a connection that ended are behind by a
/// few; who is asleep has a [`Backlog`] of his own and needs none of these. The API server's smallest watch cache has 100.
pub const MAX_EVENTS: usize = 1_024;

/// Bytes of JSON that the remembered events hold at most, states before and after counted both. Default 4 MiB: a few
/// of the largest objects, or all of [`MAX_EVENTS`] at 2 KiB a state.
pub const MAX_BYTES: usize = 4 << 20;

/// One change of one object, as a stream saw it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The version of the change. Of a deletion it is newer than the object's own.
    pub version: ResourceVersion,
    /// Before; None if it was not there.
    pub old: Option<Arc<Object>>,
    /// After, with the same uid; None if it is gone.
    pub new: Option<Arc<Object>>,
    /// A deletion of which only the upper limit of the version is known. Others may have the same.
    pub inferred: bool,
}

impl Entry {
    /// The part of it that one sees who sees only what `selects` selects: leaving is a deletion, entering an addition.
    pub fn narrow(&self, selects: impl Fn(&Object) -> bool) -> Option<Self> {
        let part = |object: &Option<Arc<Object>>| object.clone().filter(|object| selects(object));
        let (old, new) = (part(&self.old), part(&self.new));
        let version = self.version.clone();
        (old.is_some() || new.is_some()).then_some(Self { version, old, new, inferred: self.inferred })
    }

    /// Whether one who has seen everything up to `version` has to hear of it. When in doubt he has: to hear of a deletion
    /// twice is harmless.
    fn is_after(&self, version: &ResourceVersion) -> bool {
        match self.version.compare(version) {
            Some(Ordering::Greater) | None => true,
            Some(Ordering::Equal) => self.inferred,
            Some(Ordering::Less) => false,
        }
    }

    fn bytes(&self) -> usize {
        [&self.old, &self.new].into_iter().flatten().map(|object| object.json.len()).sum()
    }
}

/// The version is older than what is remembered, of a gap, or of another history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    asked: ResourceVersion,
    oldest: ResourceVersion,
}

/// The last events of a stream.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Everything after this version is in `entries`.
    floor: ResourceVersion,
    /// What had the version of the floor itself is not complete any more, and cannot be told apart.
    floor_is_incomplete: bool,
    /// The last list that followed no events.
    gap: Option<Gap>,
}

/// A time that is known by what differs between its beginning and its end. What came and went in between was never seen, so
/// nobody can resume from there who may have seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The version before it.
    pub from: ResourceVersion,
    /// The version of the list.
    pub to: ResourceVersion,
}

impl Gap {
    /// Whether the version lies within, its ends not included.
    #[must_use]
    pub fn contains(&self, version: &ResourceVersion) -> bool {
        !self.from.is_at_least(version) && !version.is_at_least(&self.to)
    }
}

impl History {
    /// A history that begins at this version: what comes from now on is remembered.
    #[must_use]
    pub fn new(floor: ResourceVersion) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, floor, floor_is_incomplete: false, gap: None }
    }

    /// Remembers one more, and forgets the oldest if that is too much. Entries come in the order of their versions.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.forget_oldest();
        }
    }

    /// Remembers what [`inferred`] made of a list. Of two gaps the later one is remembered, with what came after the earlier.
    pub fn relisted(&mut self, entries: impl IntoIterator<Item = Entry>, gap: Gap) {
        if let Some(Gap { to, .. }) = self.gap.replace(gap) {
            while self.entries.front().is_some_and(|entry| to.is_at_least(&entry.version)) {
                self.forget_oldest();
            }
            if !self.floor.is_at_least(&to) {
                self.floor = to;
            }
        }
        for entry in entries {
            self.push(entry);
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.bytes -= oldest.bytes();
        self.floor = oldest.version;
        self.floor_is_incomplete = oldest.inferred;
    }

    /// What one has to hear who has seen everything up to `version`.
    pub fn since<'a>(
        &'a self,
        version: &ResourceVersion,
    ) -> Result<impl Iterator<Item = &'a Entry> + use<'a>, Expired> {
        let is_covered = match version.compare(&self.floor) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => !self.floor_is_incomplete,
            Some(Ordering::Less) | None => false,
        };
        if !is_covered || self.gap.as_ref().is_some_and(|gap| gap.contains(version)) {
            return Err(self.expired(version));
        }
        // From the back: most who resume are a few events behind.
        let missed = self.entries.iter().rev().take_while(|entry| entry.is_after(version)).count();
        Ok(self.entries.iter().skip(self.entries.len() - missed))
    }

    /// That `version` cannot be resumed from.
    #[must_use]
    pub fn expired(&self, version: &ResourceVersion) -> Expired {
        Expired { asked: version.clone(), oldest: self.floor.clone() }
    }
}

#[cfg(test)]
mod tests;
