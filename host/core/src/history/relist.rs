//! What a list says of the time since the last event.

use std::cmp::Ordering;

use super::Entry;
use crate::object::{Change, ResourceVersion};

/// The entries for what differs between the state at `from` and a list at `to`, in the order of their versions. None if no
/// history leads from one to the other, as after a restored backup, be the objects the same or not.
///
/// A deletion's true version lies between the two and is unknown. It gets the latest that it can have: that of the
/// list, or the one before its successor's.
#[must_use]
pub fn inferred(changes: Vec<Change>, from: &ResourceVersion, to: &ResourceVersion) -> Option<Vec<Entry>> {
    if !to.is_at_least(from) {
        return None;
    }
    let is_between =
        |version: &ResourceVersion| version.compare(from) == Some(Ordering::Greater) && to.is_at_least(version);
    let mut entries = Vec::with_capacity(changes.len());
    let mut changes = changes.into_iter().peekable();
    while let Some(Change { old, new, .. }) = changes.next() {
        let (version, inferred) = match (&old, &new) {
            (_, Some(new)) => (new.metadata.resource_version.clone(), false),
            (Some(old), None) => {
                let successor = changes.peek().and_then(|next| next.new.as_ref());
                let successor = successor.filter(|new| new.object_ref() == old.object_ref());
                (successor.map_or_else(|| Some(to.clone()), |new| new.metadata.resource_version.before())?, true)
            }
            (None, None) => continue,
        };
        if !is_between(&version) {
            return None;
        }
        entries.push(Entry { version, old, new, inferred });
    }
    // An inferred deletion comes after what has its version for certain: who resumes from there hears of it again.
    let by_version = |a: &Entry, b: &Entry| a.version.compare(&b.version).unwrap_or(Ordering::Equal);
    entries.sort_by(|a, b| by_version(a, b).then(a.inferred.cmp(&b.inferred)));
    Some(entries)
}
