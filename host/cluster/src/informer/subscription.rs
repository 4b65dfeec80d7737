//! One guest's part of the shared streams, for as long as the guest has the right to it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};
use wasm_operator_core::backoff::{Backoff, Random};
use wasm_operator_core::object::{Object, ObjectRef};
use wasm_operator_core::selector::FieldSelector;

use super::audience::Known;
use super::combined::Combined;
use super::filter::Filter;
use super::wire::Source;
use super::{Informers, ParkReason, Running, Scope, Subscriber, SubscriptionState};
use crate::rights::Unanswered;

/// Wait after a question about rights that was not answered; it doubles up to the interval of the recheck.
const UNANSWERED_WAIT: Duration = Duration::from_secs(1);

/// A subscription; dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    guard: AbortHandle,
}

struct Shared {
    informers: Informers,
    scope: Scope,
    /// The one name that the scope is about: a right to that name is enough.
    name: Option<String>,
    user: Option<Arc<str>>,
    filter: Arc<Filter>,
    subscriber: Arc<dyn Subscriber>,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    streams: Vec<(Arc<Running>, u64)>,
    /// What the subscriber knows from before, while nothing is attached.
    known: Known,
    /// The subscription was dropped: nothing is attached any more.
    ended: bool,
}

impl Subscription {
    pub(super) fn begin(
        informers: Informers,
        scope: Scope,
        filter: Filter,
        user: Option<Arc<str>>,
        subscriber: Arc<dyn Subscriber>,
    ) -> Self {
        let runtime = informers.shared.runtime.clone();
        let random = informers.random();
        let fields = FieldSelector::parse(&scope.field_selector).unwrap_or_default();
        let name = fields.single_name().map(str::to_owned);
        let filter = Arc::new(filter);
        let shared = Arc::new(Shared { informers, scope, name, user, filter, subscriber, attached: Mutex::default() });
        let guard = runtime.spawn(guard(shared.clone(), random)).abort_handle();
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
        // The guard may be in the middle of attaching: only its next wait ends it.
        self.shared.attached.lock().ended = true;
        self.shared.detach();
    }
}

impl Shared {
    fn attach(&self, sources: Vec<Source>) {
        let streams: Vec<_> = sources.into_iter().map(|source| self.informers.open(source)).collect();
        let parts = Combined::parts(self.subscriber.clone(), streams.len());
        let mut attached = self.attached.lock();
        if attached.ended {
            return;
        }
        let mut known = std::mem::take(&mut attached.known);
        for (running, part) in streams.into_iter().zip(parts) {
            let namespace = running.stream.source.namespace.clone();
            let of_stream = known.extract_if(.., |key, _| namespace.is_none() || key.namespace == namespace).collect();
            let id = running.stream.attach(self.filter.clone(), part, of_stream);
            attached.streams.push((running, id));
        }
    }

    /// Ends what is attached. What the subscriber knows is kept, so that it hears of deletions when it comes back.
    fn detach(&self) {
        let mut attached = self.attached.lock();
        for (running, id) in std::mem::take(&mut attached.streams) {
            let known = running.stream.detach(id);
            attached.known.extend(known);
            self.informers.linger(running);
        }
    }

    /// Does what the rights of the moment ask for. `told`: the subscriber knows that it has no right.
    async fn follow_rights(&self, told: &mut bool) -> Result<(), Unanswered> {
        if !self.allowed().await? {
            self.detach();
            if !std::mem::replace(told, true) {
                warn!(
                    resource = %self.scope.resource,
                    namespaces = ?self.scope.namespaces,
                    user = self.user.as_deref(),
                    "the guest's identity may not `list` and `watch`; grant it with `wasm-operator rbac`"
                );
                let reason = ParkReason::GuestForbidden;
                self.subscriber.state(&SubscriptionState::Parked { reason, has_objects: false });
            }
            return Ok(());
        }
        if self.is_attached_well() {
            return Ok(());
        }
        let sources = self.informers.sources(&self.scope, self.user.as_ref()).await?;
        if self.is_attached_to(&sources) {
            return Ok(());
        }
        if std::mem::take(told) {
            info!(resource = %self.scope.resource, user = self.user.as_deref(), "the right to watch is back");
        }
        self.detach();
        self.attach(sources);
        Ok(())
    }

    /// Whether there is nothing to change: it is attached, and the host is not refused what it asks for.
    fn is_attached_well(&self) -> bool {
        let attached = self.attached.lock();
        !attached.streams.is_empty() && !attached.streams.iter().any(|(running, _)| running.stream.is_refused())
    }

    fn is_attached_to(&self, sources: &[Source]) -> bool {
        let attached = self.attached.lock();
        attached.streams.len() == sources.len()
            && attached.streams.iter().all(|(running, _)| sources.contains(&running.stream.source))
    }

    /// Whether the user may have all of the scope.
    async fn allowed(&self) -> Result<bool, Unanswered> {
        let Some(user) = self.user.as_deref() else { return Ok(true) };
        let may = async |namespace| {
            self.informers.may_watch(Some(user), &self.scope.resource, namespace, self.name.as_deref()).await
        };
        if self.scope.namespaces.is_empty() {
            return may(None).await;
        }
        for namespace in &self.scope.namespaces {
            if !may(Some(namespace.as_str())).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Attaches and detaches as rights come and go. While a question is not answered, what is attached stays.
async fn guard(shared: Arc<Shared>, mut random: Random) {
    let recheck = shared.informers.shared.options.recheck;
    let unanswered = Backoff { base: UNANSWERED_WAIT, max: recheck };
    let (mut told, mut failures) = (false, 0);
    loop {
        // Boxed: it takes some kilobytes while it asks, and the guard waits most of the time, once for each subscription.
        let pause = match Box::pin(shared.follow_rights(&mut told)).await {
            Ok(()) => {
                failures = 0;
                // Jittered, as guests that start together must not ask together for ever.
                Backoff { base: recheck, max: recheck }.delay(0, &mut random)
            }
            Err(error) => {
                if failures == 0 {
                    warn!(resource = %shared.scope.resource, %error, "cannot check a right to watch; trying again");
                }
                failures += 1;
                unanswered.delay(failures - 1, &mut random)
            }
        };
        sleep(pause).await;
    }
}
