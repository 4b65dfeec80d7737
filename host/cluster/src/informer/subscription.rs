//! One guest's part of the shared streams, for as long as the guest has the right to it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};
use wasm_operator_core::object::{Object, ObjectRef};
use wasm_operator_core::selector::FieldSelector;

use super::filter::Filter;
use super::{Informers, ParkReason, Running, Scope, Subscriber, SubscriptionState};

/// A subscription; dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    guard: AbortHandle,
}

struct Shared {
    informers: Informers,
    scope: Scope,
    user: Option<Arc<str>>,
    filter: Arc<Filter>,
    subscriber: Arc<dyn Subscriber>,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    streams: Vec<(Arc<Running>, u64)>,
    /// The subscription was dropped: nothing is attached any more.
    ended: bool,
}

impl Subscription {
    pub(super) fn begin(
        informers: Informers,
        scope: Scope,
        user: Option<Arc<str>>,
        subscriber: Arc<dyn Subscriber>,
    ) -> Self {
        let filter = Filter {
            namespaces: scope.namespaces.iter().map(|namespace| Arc::from(namespace.as_str())).collect(),
            fields: FieldSelector::parse(&scope.field_selector)
                .ok()
                .filter(FieldSelector::is_local)
                .unwrap_or_default(),
        };
        let runtime = informers.shared.runtime.clone();
        let shared =
            Arc::new(Shared { informers, scope, user, filter: Arc::new(filter), subscriber, attached: Mutex::default() });
        let guard = runtime.spawn(guard(shared.clone())).abort_handle();
        Self { shared, guard }
    }

    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.shared.scope
    }

    /// The object, if it is in scope and the subscription has it.
    #[must_use]
    pub fn get(&self, object: &ObjectRef) -> Option<Arc<Object>> {
        let attached = self.shared.attached.lock();
        attached.streams.iter().find_map(|(running, _)| running.stream.get(object, &self.shared.filter))
    }

    /// All objects in scope.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Object>> {
        let attached = self.shared.attached.lock();
        let filter = &self.shared.filter;
        attached.streams.iter().flat_map(|(running, _)| running.stream.list(|object| filter.selects(object))).collect()
    }

    /// Whether all objects that were there when it began are known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let attached = self.shared.attached.lock();
        !attached.streams.is_empty() && attached.streams.iter().all(|(running, _)| running.stream.is_synced())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.guard.abort();
        self.shared.detach(true);
    }
}

impl Shared {
    async fn attach(&self) {
        let sources = self.informers.sources(&self.scope, self.user.as_ref()).await;
        let streams: Vec<_> = sources.into_iter().map(|source| self.informers.open(source)).collect();
        let mut attached = self.attached.lock();
        if attached.ended {
            return;
        }
        for running in streams {
            let id = running.stream.attach(self.filter.clone(), self.subscriber.clone());
            attached.streams.push((running, id));
        }
    }

    fn detach(&self, ended: bool) {
        let mut attached = self.attached.lock();
        attached.ended |= ended;
        let streams = std::mem::take(&mut attached.streams);
        drop(attached);
        for (running, id) in streams {
            running.stream.detach(id);
            self.informers.linger(running);
        }
    }

    fn is_attached(&self) -> bool {
        !self.attached.lock().streams.is_empty()
    }

    /// Whether the user may have all of the scope; Err if that is not known.
    async fn allowed(&self) -> Result<bool, ()> {
        let Some(user) = self.user.as_deref() else { return Ok(true) };
        let resource = &self.scope.resource;
        if self.scope.namespaces.is_empty() {
            return self.informers.may_watch(Some(user), resource, None).await;
        }
        for namespace in &self.scope.namespaces {
            if !self.informers.may_watch(Some(user), resource, Some(namespace)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Attaches and detaches as the user's right comes and goes.
async fn guard(shared: Arc<Shared>) {
    let options = &shared.informers.shared.options;
    let mut told = false;
    loop {
        match shared.allowed().await {
            Ok(true) => {
                if !shared.is_attached() {
                    if told {
                        info!(resource = %shared.scope.resource, user = shared.user.as_deref(), "the right to watch is back");
                    }
                    told = false;
                    shared.attach().await;
                }
                sleep(options.recheck).await;
            }
            Ok(false) => {
                if !told {
                    warn!(
                        resource = %shared.scope.resource,
                        namespaces = ?shared.scope.namespaces,
                        user = shared.user.as_deref(),
                        "the guest's identity may not `list` and `watch`; grant it with `wasm-operator rbac`"
                    );
                    told = true;
                }
                shared.detach(false);
                let reason = ParkReason::GuestForbidden;
                shared.subscriber.state(&SubscriptionState::Parked { reason, has_objects: false });
                sleep(options.recheck).await;
            }
            // Not known: what is attached stays, and the question is asked again soon.
            Err(()) => sleep(options.recheck.min(std::time::Duration::from_secs(1))).await,
        }
    }
}
