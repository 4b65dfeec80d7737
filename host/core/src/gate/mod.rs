//! Read your own writes: after a write by a guest, no cached read of that guest shows an older state of what it wrote.
//!
//! A [`Gate`] belongs to one guest. It is told each write's [`Effect`], and decides for a cached read whether a
//! [`View`] of the cache has caught up, is worth waiting for, or must be left aside for the API server. Versions are
//! compared as decimal numbers of any length; where the order is unknown the gate does not open before its time.

mod effect;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::object::{ObjectRef, ResourceVersion};
use crate::timer::Time;

pub use effect::{Effect, Target};

/// How long a cached read waits for the cache after a write before it goes to the API server. Default 5 s: an echo
/// takes milliseconds, so a longer silence is a broken watch.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// Writes per resource that are remembered one by one. Default 64; the oldest are then folded into one version that
/// the whole cache has to pass.
const MAX_WRITES: usize = 64;

/// Deleted uids per resource that are hidden. Default 1,024: a hidden uid costs some 100 bytes, and beyond that reads go
/// to the API server until the cache has caught up.
const MAX_HIDDEN: usize = 1_024;

/// How long a deleted uid is hidden when the cache was never seen to hold it. Default 10 min: several times the age
/// that a watch can reach unnoticed.
const HIDDEN_FOR: Duration = Duration::from_secs(600);

/// Resources per guest. Default 256; a guest that writes more kinds than that reads from the API server only.
const MAX_RESOURCES: usize = 256;

/// A resource of any version: the API group and the plural.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// API group, empty for the core group.
    pub group: Arc<str>,
    /// Lower-case plural.
    pub plural: Arc<str>,
}

/// What a cache holds at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub version: ResourceVersion,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
}

/// One consistent state of a cache of one resource.
pub trait View {
    /// The resourceVersion up to which all changes are in: of the last event, bookmark or list. None before the first list.
    fn position(&self) -> Option<ResourceVersion>;
    /// What is held at this key.
    fn held(&self, object: &ObjectRef) -> Option<Held>;
    /// Could an object like this one be in the view? False when it lies outside its namespace or selector.
    fn covers(&self, target: &Target) -> bool;
    /// Is an object like this one in the view for certain? False also where that is not known, as with a field selector.
    fn selects(&self, target: &Target) -> bool;
}

fn has_passed(view: &dyn View, version: &ResourceVersion) -> bool {
    view.position().is_some_and(|position| position.is_at_least(version))
}

/// What a cached read asks for. Only writes to objects that it could show matter to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// None: all namespaces, or a cluster-scoped resource.
    pub namespace: Option<&'a str>,
    /// None: a list.
    pub name: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// Everything.
    pub const ALL: Self = Self { namespace: None, name: None };

    /// This object only.
    pub fn of(object: &'a ObjectRef) -> Self {
        Self { namespace: object.namespace.as_deref(), name: Some(&object.name) }
    }

    fn includes(&self, object: &ObjectRef) -> bool {
        self.namespace.is_none_or(|namespace| object.namespace.as_deref() == Some(namespace))
            && self.name.is_none_or(|name| *object.name == *name)
    }
}

/// What to do with a cached read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answer from this view, without the objects of these uids: they are deleted.
    Serve(HashSet<Arc<str>>),
    /// Ask again when the view has moved, at the latest at this time.
    Wait(Time),
    /// Send the read to the API server, without `resourceVersion=0`: the server's own cache may be behind as well.
    Forward,
}

/// What has to be seen of a written object.
#[derive(Debug, Clone)]
enum Until {
    /// The uid at this version or a newer one, or the position at it.
    Version,
    /// Nothing of this uid: its last finalizer is gone, the DELETED event comes with a newer version than this.
    Gone,
    /// Nothing of this uid, or its deletion timestamp.
    GoneOrTerminating,
}

#[derive(Debug, Clone)]
struct Write {
    target: Target,
    until: Until,
    at: Time,
}

impl Write {
    fn is_seen(&self, view: &dyn View) -> bool {
        let version = &self.target.version;
        let passed = has_passed(view, version);
        let held = view.held(&self.target.object).filter(|held| held.uid == self.target.uid);
        match self.until {
            Until::Version => passed || held.is_some_and(|held| held.version.is_at_least(version)),
            // Before the position has passed the version that the write answered, absence may mean "not created yet".
            Until::Gone => passed && held.is_none(),
            Until::GoneOrTerminating => passed && held.is_none_or(|held| held.terminating),
        }
    }

    /// An object that the view never held and does not take in will never show up in it.
    fn concerns(&self, view: &dyn View) -> bool {
        view.covers(&self.target) || self.is_held(view)
    }

    /// Will the view hear of it? One that has not listed may never do so, and one that may not select the object may hear of
    /// nothing but bookmarks: waiting for these, every guest could make all others wait with a selector of its own.
    fn is_expected(&self, view: &dyn View) -> bool {
        view.position().is_some() && view.selects(&self.target) || self.is_held(view)
    }

    fn is_held(&self, view: &dyn View) -> bool {
        view.held(&self.target.object).is_some_and(|held| held.uid == self.target.uid)
    }
}

#[derive(Debug, Clone)]
struct Hidden {
    object: ObjectRef,
    at: Time,
    /// A view was seen to hold it, so its absence means that the DELETED has come.
    seen: bool,
}

/// A write whose outcome is unknown: reads go upstream until the cache has passed a list made after it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Barrier {
    /// The list is still to be made.
    Needed,
    /// The list's version.
    At(ResourceVersion),
}

/// What views of a resource have not seen yet: the answer of [`Gate::look`].
#[derive(Debug, Default)]
pub struct Unseen {
    writes: HashSet<Arc<str>>,
    held: HashSet<Arc<str>>,
    unlisted: bool,
    behind: bool,
}

#[derive(Debug, Default)]
struct Pending {
    /// By uid: a newer write of the same object replaces the older one.
    writes: HashMap<Arc<str>, Write>,
    hidden: HashMap<Arc<str>, Hidden>,
    barrier: Option<Barrier>,
    /// Counts unknown outcomes, so that a list made before the latest of them does not lift the barrier.
    generation: u64,
}

/// The writes of one guest that its cached reads must not miss.
#[derive(Debug, Default)]
pub struct Gate {
    resources: BTreeMap<ResourceKey, Pending>,
    /// There were more resources than can be remembered.
    overflowed: bool,
}

impl Gate {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the effect of a write.
    pub fn record(&mut self, resource: &ResourceKey, effect: Effect, now: Time) {
        if effect == Effect::Nothing {
            return;
        }
        if !self.resources.contains_key(resource) && self.resources.len() >= MAX_RESOURCES {
            self.overflowed = true;
            return;
        }
        let pending = self.resources.entry(resource.clone()).or_default();
        match effect {
            Effect::Nothing => {}
            Effect::Changed(target) => pending.add(target, Until::Version, now),
            Effect::Removed(target) => pending.add(target, Until::Gone, now),
            Effect::Collection(targets) => {
                for target in targets {
                    pending.add(target, Until::GoneOrTerminating, now);
                }
            }
            Effect::Deleted { object, uid } => pending.hide(object, uid, now),
            Effect::Unknown => pending.unknown(),
        }
    }

    /// Decides a cached read of `resource` from `view`.
    pub fn decide(&self, resource: &ResourceKey, scope: Scope<'_>, view: &dyn View, now: Time) -> Decision {
        if self.overflowed {
            return Decision::Forward;
        }
        let Some(pending) = self.resources.get(resource) else {
            return Decision::Serve(HashSet::new());
        };
        match &pending.barrier {
            None => {}
            Some(Barrier::At(version)) if has_passed(view, version) => {}
            Some(_) => return Decision::Forward,
        }
        let waited_for = pending
            .writes
            .values()
            .filter(|write| scope.includes(&write.target.object) && write.concerns(view) && !write.is_seen(view))
            // The oldest: when its time is up the cache is not trusted any more.
            .map(|write| write.at + MAX_WAIT)
            .min();
        match waited_for {
            Some(until) if until > now => Decision::Wait(until),
            Some(_) => Decision::Forward,
            None => Decision::Serve(
                pending
                    .hidden
                    .iter()
                    .filter(|(_, hidden)| scope.includes(&hidden.object))
                    .map(|(uid, _)| uid.clone())
                    .collect(),
            ),
        }
    }

    /// Until when `view`, one that wakes this guest, is expected to bring it the echo of its own write in this scope;
    /// None when there is none under way. Such a guest is not put to sleep, or each write would cost a wake, and the
    /// object that was written is not reconciled from its older state.
    pub fn is_echo_pending(
        &self,
        resource: &ResourceKey,
        scope: Scope<'_>,
        view: &dyn View,
        now: Time,
    ) -> Option<Time> {
        let pending = self.resources.get(resource)?;
        let writes = pending
            .writes
            .values()
            .filter(|write| scope.includes(&write.target.object))
            .filter(|write| write.at + MAX_WAIT > now && write.is_expected(view) && !write.is_seen(view))
            .map(|write| write.at);
        let deletes = pending
            .hidden
            .iter()
            .filter(|(_, hidden)| scope.includes(&hidden.object))
            .filter(|(uid, hidden)| {
                hidden.at + MAX_WAIT > now && view.held(&hidden.object).is_some_and(|held| held.uid == **uid)
            })
            .map(|(_, hidden)| hidden.at);
        writes.chain(deletes).max().map(|at| at + MAX_WAIT)
    }

    /// Notes in `unseen` what `view` has not seen yet, for [`Gate::settle`].
    pub fn look(&self, resource: &ResourceKey, view: &dyn View, unseen: &mut Unseen) {
        let Some(pending) = self.resources.get(resource) else { return };
        let listed = view.position().is_some();
        unseen.unlisted |= !listed;
        // A view that has not listed may list an old state of anything.
        let writes =
            pending.writes.iter().filter(|(_, write)| !write.is_seen(view) && (!listed || write.concerns(view)));
        unseen.writes.extend(writes.map(|(uid, _)| uid.clone()));
        let held = |uid: &str, hidden: &Hidden| view.held(&hidden.object).is_some_and(|held| *held.uid == *uid);
        unseen.held.extend(pending.hidden.iter().filter(|(uid, hidden)| held(uid, hidden)).map(|(uid, _)| uid.clone()));
        if let Some(Barrier::At(version)) = &pending.barrier {
            unseen.behind |= !has_passed(view, version);
        }
    }

    /// Forgets what every view of the resource has seen. `unseen` must have been at every view that a later read could
    /// be answered from; with none, a later one begins with a fresh list.
    pub fn settle(&mut self, resource: &ResourceKey, unseen: &Unseen, now: Time) {
        let Some(pending) = self.resources.get_mut(resource) else { return };
        pending.writes.retain(|uid, _| unseen.writes.contains(uid));
        pending.hidden.retain(|uid, hidden| {
            let held = unseen.held.contains(uid);
            let gone = hidden.seen && !unseen.unlisted;
            hidden.seen |= held;
            held || !gone && hidden.at + HIDDEN_FOR > now
        });
        if matches!(pending.barrier, Some(Barrier::At(_))) && !unseen.behind {
            pending.barrier = None;
        }
        if pending.writes.is_empty() && pending.hidden.is_empty() && pending.barrier.is_none() {
            self.resources.remove(resource);
        }
        if self.resources.is_empty() {
            // Emptied, it would keep its last node of 2 KiB, in each guest that ever wrote.
            *self = Self::default();
        }
    }

    /// Is there nothing to remember?
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Resources with something to remember.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceKey> {
        self.resources.keys()
    }

    /// Is there something to remember of this resource?
    pub fn remembers(&self, resource: &ResourceKey) -> bool {
        self.resources.contains_key(resource)
    }

    /// Must a list with `limit=1` be made, because a write's outcome is unknown? The number goes back with the answer.
    pub fn needs_list(&self, resource: &ResourceKey) -> Option<u64> {
        let pending = self.resources.get(resource)?;
        (pending.barrier == Some(Barrier::Needed)).then_some(pending.generation)
    }

    /// Takes the version of the list that [`Gate::needs_list`] asked for.
    pub fn listed(&mut self, resource: &ResourceKey, generation: u64, version: ResourceVersion) {
        if let Some(pending) = self.resources.get_mut(resource)
            && pending.generation == generation
            && pending.barrier == Some(Barrier::Needed)
        {
            pending.barrier = Some(Barrier::At(version));
        }
    }

    /// Forgets everything of the resource: the cluster has a new history, such as an etcd restored from a backup.
    pub fn clear(&mut self, resource: &ResourceKey) {
        self.resources.remove(resource);
    }
}

impl Pending {
    fn add(&mut self, target: Target, until: Until, at: Time) {
        if let Some(known) = self.writes.get(&target.uid) {
            // Nothing follows a removal, and of two answers that crossed the newer version counts.
            let crossed = known.target.version.is_at_least(&target.version) && known.target.version != target.version;
            if matches!(known.until, Until::Gone) || crossed && matches!(until, Until::Version) {
                return;
            }
        } else if self.writes.len() >= MAX_WRITES {
            self.fold_oldest();
        }
        self.writes.insert(target.uid.clone(), Write { target, until, at });
    }

    fn fold_oldest(&mut self) {
        let Some(uid) = self.writes.iter().min_by_key(|(_, write)| write.at).map(|(uid, _)| uid.clone()) else {
            return;
        };
        let Some(write) = self.writes.remove(&uid) else { return };
        match (write.until, &self.barrier) {
            (Until::Version, None) => self.barrier = Some(Barrier::At(write.target.version)),
            (Until::Version, Some(Barrier::At(version))) => {
                if !version.is_at_least(&write.target.version) {
                    self.barrier = Some(Barrier::At(write.target.version));
                }
            }
            (Until::Version, Some(Barrier::Needed)) => {}
            // The version of the removal is not known: a fresh list is newer than it.
            (Until::Gone | Until::GoneOrTerminating, _) => self.unknown(),
        }
    }

    fn hide(&mut self, object: ObjectRef, uid: Arc<str>, at: Time) {
        self.writes.remove(&uid);
        if self.hidden.len() >= MAX_HIDDEN {
            let oldest = self.hidden.iter().min_by_key(|(_, hidden)| hidden.at).map(|(uid, _)| uid.clone());
            if let Some(oldest) = oldest {
                self.hidden.remove(&oldest);
            }
            self.unknown();
        }
        self.hidden.insert(uid, Hidden { object, at, seen: false });
    }

    fn unknown(&mut self) {
        self.barrier = Some(Barrier::Needed);
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
