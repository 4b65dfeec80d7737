//! What one watcher has not taken yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Entry, Gap};
use crate::object::{Object, ObjectRef, ResourceVersion};

/// The type of a watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// New to the watcher.
    Added,
    /// Changed.
    Modified,
    /// Gone for the watcher.
    Deleted,
}

impl EventType {
    /// As it is written in a watch.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub r#type: EventType,
    /// The last state that the watcher may see.
    pub object: Arc<Object>,
    /// The version to show: of a deletion it is newer than the object's own.
    pub version: ResourceVersion,
}

/// What a watcher is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(WatchEvent),
    /// All objects that were there when the watch began have been told: they were these at this version.
    InitialEnd(ResourceVersion),
}

/// The events that a watcher has not taken: the objects that were there when it began, then one state per object that
/// changed since.
///
/// What can be left out is left out: of several states of an object the last one counts, and what came and went was never
/// there. A deletion of what the watcher knows stays, also when an object of the same name follows. So there are at most
/// two events for each object that the watcher knows or that exists, and their objects are shared with the store.
#[derive(Debug, Default)]
pub struct Backlog {
    /// What the watcher has seen elsewhere, such as in a list.
    after: Option<ResourceVersion>,
    initial: VecDeque<Arc<Object>>,
    initial_end: Option<ResourceVersion>,
    objects: BTreeMap<ObjectRef, Pending>,
    /// By the number of the event, which is the order of versions.
    order: BTreeMap<u64, ObjectRef>,
    next: u64,
    /// The watcher knows that it has seen everything up to this version.
    told: Option<ResourceVersion>,
    compacted: u64,
}

/// What is to be told of one object: a deletion, what is there now, or one after the other.
#[derive(Debug, Default)]
struct Pending {
    gone: Option<(u64, WatchEvent)>,
    here: Option<(u64, WatchEvent)>,
}

impl Backlog {
    /// Of a watcher that has seen everything up to `version`, and nothing after it.
    #[must_use]
    pub fn after(version: ResourceVersion) -> Self {
        Self { told: Some(version.clone()), after: Some(version), ..Self::default() }
    }

    /// Of a watcher that knows nothing: it is told of these objects, which are those of `position`, and then of what comes.
    #[must_use]
    pub fn starting_with(objects: Vec<Arc<Object>>, position: ResourceVersion) -> Self {
        Self { initial: objects.into(), initial_end: Some(position), ..Self::default() }
    }

    /// Takes a change that the watcher may see, in the order of versions.
    pub fn push(&mut self, entry: &Entry) {
        if self.after.as_ref().is_some_and(|after| !entry.is_after(after)) {
            return;
        }
        let Some(latest) = entry.new.as_ref().or(entry.old.as_ref()) else { return };
        let key = latest.object_ref();
        let Self { objects, order, next, compacted, .. } = self;
        let pending = objects.entry(key.clone()).or_default();
        let here = pending.here.take();
        if let Some((number, _)) = &here {
            order.remove(number);
            *compacted += 1;
        }
        let was_added = here.as_ref().map(|(_, event)| event.r#type == EventType::Added);
        let r#type = match (was_added, &entry.new) {
            // It came and went.
            (Some(true), None) => None,
            (Some(true), Some(_)) => Some(EventType::Added),
            (_, None) => pending.gone.is_none().then_some(EventType::Deleted),
            (Some(false), Some(_)) => Some(EventType::Modified),
            (None, Some(_)) if entry.old.is_none() || pending.gone.is_some() => Some(EventType::Added),
            (None, Some(_)) => Some(EventType::Modified),
        };
        if let Some(r#type) = r#type {
            let event = WatchEvent { r#type, object: latest.clone(), version: entry.version.clone() };
            let place = if r#type == EventType::Deleted { &mut pending.gone } else { &mut pending.here };
            *place = Some((*next, event));
            order.insert(*next, key);
            *next += 1;
        } else {
            *compacted += 1;
            if pending.gone.is_none() {
                objects.remove(&key);
            }
        }
    }

    /// Takes the next, in the order of versions but for the objects that were there at the beginning.
    pub fn take(&mut self) -> Option<Item> {
        if let Some(object) = self.initial.pop_front() {
            let version = object.metadata.resource_version.clone();
            return Some(Item::Event(WatchEvent { r#type: EventType::Added, object, version }));
        }
        if let Some(position) = self.initial_end.take() {
            self.initial = VecDeque::new();
            self.told = Some(position.clone());
            return Some(Item::InitialEnd(position));
        }
        let (number, key) = self.order.pop_first()?;
        let pending = self.objects.get_mut(&key)?;
        let is_this = |event: &mut (u64, WatchEvent)| event.0 == number;
        let event = pending.gone.take_if(is_this).or_else(|| pending.here.take_if(is_this));
        if pending.gone.is_none() && pending.here.is_none() {
            self.objects.remove(&key);
        }
        if self.order.is_empty() {
            // Emptied, they would keep their last nodes of 2 KiB, in each watch of each guest.
            (self.objects, self.order) = (BTreeMap::new(), BTreeMap::new());
        }
        let (_, event) = event?;
        self.told = Some(event.version.clone());
        Some(Item::Event(event))
    }

    /// Whether everything has been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.initial.is_empty() && self.initial_end.is_none() && self.order.is_empty()
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.initial.len() + usize::from(self.initial_end.is_some()) + self.order.len()
    }

    /// The version for a bookmark: that of the stream, if the watcher has taken everything up to it and does not know.
    pub fn bookmark(&mut self, position: &ResourceVersion) -> Option<ResourceVersion> {
        let is_news = self.told.as_ref().is_none_or(|told| told != position && position.is_at_least(told));
        if !self.is_empty() || !is_news {
            return None;
        }
        self.told = Some(position.clone());
        Some(position.clone())
    }

    /// The version that the watcher has seen elsewhere, if the stream at `position` has not reached it.
    #[must_use]
    pub fn is_ahead_of(&self, position: &ResourceVersion) -> bool {
        self.after.as_ref().is_some_and(|after| !position.is_at_least(after))
    }

    /// Whether the watcher saw something that this gap hides: its watch has to begin anew.
    #[must_use]
    pub fn is_within(&self, gap: &Gap) -> bool {
        self.after.as_ref().is_some_and(|after| gap.contains(after))
    }

    /// How many events were left out, since the last call.
    pub fn take_compacted(&mut self) -> u64 {
        std::mem::take(&mut self.compacted)
    }

    /// Forgets everything: the watcher is told why its watch ends, and begins anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
