//! From a change in a shared cache to a key in a guest's queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};
use wasm_operator_cluster::gateway::GuestGateway;
use wasm_operator_cluster::informer::{Subscriber, SubscriptionState};
use wasm_operator_core::dispatch::{GuestId, Key, Mark};
use wasm_operator_core::index::FieldIndex;
use wasm_operator_core::object::{Change, Object, ObjectRef};
use wasm_operator_core::reconcile::{Cause, Tombstone};
use wasm_operator_core::watch::{Mapped, Mapping, Primaries, Watch};

use crate::scheduler::Scheduler;

/// The annotation from which a change's W3C trace context is taken, as controllers that trace write it.
const TRACEPARENT: &str = "traceparent";

/// What the watches of one controller share.
pub(crate) struct Controller {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) gateway: Arc<GuestGateway>,
    pub(crate) guest: GuestId,
    pub(crate) guest_name: Arc<str>,
    pub(crate) name: Arc<str>,
    /// Whether the primaries have namespaces, as the last one that was seen does. Before any is seen there is nothing
    /// that a mapping could lead to.
    pub(crate) namespaced: AtomicBool,
    pub(crate) cross_namespace: bool,
    /// The primaries by the fields that watches map by.
    pub(crate) index: Mutex<FieldIndex>,
    /// The uids of the primaries, kept if a watch maps by owner: an owner of the same name may be another object.
    pub(crate) uids: Option<Mutex<HashMap<ObjectRef, Arc<str>>>>,
}

impl Controller {
    /// Follows a change of a primary.
    fn primary_changed(&self, change: &Change) {
        self.index.lock().update(change);
        if let Some(object) = change.latest() {
            self.namespaced.store(object.metadata.namespace.is_some(), Ordering::Relaxed);
        }
        let Some(uids) = &self.uids else { return };
        let mut uids = uids.lock();
        match (&change.old, &change.new) {
            (_, Some(new)) => uids.insert(new.object_ref(), new.metadata.uid.clone()),
            (Some(old), None) => uids.remove(&old.object_ref()),
            (None, None) => None,
        };
    }

    /// Whether the primary is the one that was meant, as far as is known.
    fn is_meant(&self, mapped: &Mapped) -> bool {
        let (Some(uids), Some(uid)) = (&self.uids, &mapped.uid) else { return true };
        uids.lock().get(&mapped.object).is_none_or(|known| known == uid)
    }
}

/// Turns the changes of one watch into marks. Called by the reader of the stream: it takes short locks and never waits.
pub(crate) struct WatchSubscriber {
    controller: Arc<Controller>,
    watch: Watch,
    is_primary: bool,
    state: Mutex<SubscriptionState>,
}

impl Subscriber for WatchSubscriber {
    fn changed(&self, change: &Change) {
        let controller = &self.controller;
        if self.is_primary {
            controller.primary_changed(change);
        }
        if !self.watch.passes(change) {
            return;
        }
        let cause = if change.initial { Cause::Initial } else { Cause::Change };
        let traceparent = change
            .new
            .as_ref()
            .and_then(|object| object.metadata.annotations.get(TRACEPARENT).map(|value| value.to_string()));
        let marks: Vec<Mark> = self
            .keys(change)
            .into_iter()
            .map(|object| {
                let key = Key { controller: controller.name.clone(), object };
                let deleted = self.tombstone(change);
                Mark { deleted, traceparent: traceparent.clone(), ..Mark::new(key, cause) }
            })
            .collect();
        if marks.is_empty() {
            return;
        }
        controller.scheduler.tell(|dispatcher, now| {
            for mark in marks {
                dispatcher.mark(now, controller.guest, mark);
            }
        });
    }

    fn state(&self, state: &SubscriptionState) {
        *self.state.lock() = state.clone();
        let guest = &*self.controller.guest_name;
        let resource = self.watch.of.to_string();
        match state {
            SubscriptionState::Parked { reason, .. } => {
                warn!(guest, controller = &*self.controller.name, resource, "the watch waits: {reason}");
            }
            SubscriptionState::Synced => {
                info!(guest, controller = &*self.controller.name, resource, "the watch is up to date");
            }
            SubscriptionState::Syncing | SubscriptionState::Restarting => {}
        }
    }

    fn history_lost(&self) {
        self.controller.gateway.forget_writes(&self.watch.of.group, &self.watch.of.plural);
    }
}

impl WatchSubscriber {
    pub(crate) fn new(controller: Arc<Controller>, watch: Watch, is_primary: bool) -> Self {
        Self { controller, watch, is_primary, state: Mutex::new(SubscriptionState::Syncing) }
    }

    /// How the watch is doing.
    pub(crate) fn latest_state(&self) -> SubscriptionState {
        self.state.lock().clone()
    }

    fn keys(&self, change: &Change) -> Vec<ObjectRef> {
        let index = self.controller.index.lock();
        let primaries = Primaries {
            namespaced: self.controller.namespaced.load(Ordering::Relaxed),
            cross_namespace: self.controller.cross_namespace,
            index: &index,
        };
        let mapped = self.watch.keys(change, primaries);
        mapped.into_iter().filter(|mapped| self.controller.is_meant(mapped)).map(|mapped| mapped.object).collect()
    }

    /// What is remembered of a primary that was deleted.
    fn tombstone(&self, change: &Change) -> Option<Tombstone> {
        let gone = |old: &Arc<Object>| Tombstone { uid: old.metadata.uid.clone(), metadata: old.metadata_json() };
        let deleted = self.watch.mapping == Mapping::Object && self.is_primary && change.new.is_none();
        change.old.as_ref().filter(|_| deleted).map(gone)
    }
}
