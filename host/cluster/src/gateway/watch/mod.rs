//! Watches of guests that keep their own: served from the shared streams, so that any number of guests costs one upstream
//! watch, and none of them is told anything but what happened.
//!
//! What a stream cannot serve goes to the API server. So does what the guest may not have: the server says so.

mod body;
mod open;

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use wasm_operator_core::gate::{Decision, ResourceKey, Scope};
use wasm_operator_core::object::ResourceVersion;
use wasm_operator_core::request::{
    Accept, ContentType, Refusal, ResourceRequest, Shape, Verb, WatchFrom, WatchOptions,
};
use wasm_operator_core::watch::Representation;

use super::{Body, Current, GuestGateway};
use crate::informer::{Feed, FeedScope, WatchEnd, WatchStart};

pub(super) use body::WatchBody;
pub(super) use open::{MAX_WATCHES, Watches};

/// Most that a guest's watch waits before the server is asked instead: for the caches to have the guest's own writes, or
/// the version that it asks for.
const PATIENCE: std::time::Duration = wasm_operator_core::gate::MAX_WAIT;

/// Is it how a client begins that will watch? Such a list comes in pages, or asks for any version; then the stream is opened
/// that the watch will need, so that the watch finds the list's version in its history.
pub(super) fn begins_watch(request: &ResourceRequest) -> bool {
    let query = &request.query;
    let version = query.resource_version.as_deref().unwrap_or("");
    request.verb == Verb::List
        && request.subresource.is_none()
        && query.continue_token.is_none()
        && (version.is_empty() && query.limit.is_some() || version == "0")
}

impl GuestGateway {
    /// A place for one more watch of this guest.
    pub(super) fn watch_place(&self, current: &Current) -> Result<OwnedSemaphorePermit, Refusal> {
        self.watches.place().ok_or_else(|| {
            let guest = &current.access.name;
            Refusal::too_many_requests(format!(
                "guest `{guest}` has {MAX_WATCHES} watches open, as many as a guest may have; close some of them"
            ))
        })
    }

    /// The stream for this list or watch; None where the server has to be asked.
    pub(super) async fn feed(&self, current: &Current, request: &ResourceRequest, accept: &Accept) -> Option<Feed> {
        let representation = match accept.shape? {
            Shape::Full => Representation::Full,
            Shape::Metadata | Shape::MetadataList => Representation::Metadata,
        };
        let scope = FeedScope {
            group: request.group.clone(),
            version: request.version.clone(),
            plural: request.plural.clone(),
            namespace: request.namespace.clone(),
            label_selector: request.query.label_selector.clone().unwrap_or_default(),
            field_selector: request.query.field_selector.clone().unwrap_or_default(),
            representation,
        };
        self.shared.caches.feed(current.access.user.as_str().into(), scope).await
    }

    /// Serves a watch; None when the request has to be forwarded.
    pub(super) async fn watch(
        self: &Arc<Self>,
        current: &Current,
        request: &ResourceRequest,
        accept: &Accept,
        deadline: Instant,
    ) -> Option<(u16, HeaderMap, Body)> {
        let options = WatchOptions::of(request)?;
        let shape = accept.shape.filter(|shape| *shape != Shape::MetadataList)?;
        let feed = timeout_at(deadline, self.feed(current, request, accept)).await.ok()??;
        let (start, hidden) = match &options.from {
            WatchFrom::Version(version) => (WatchStart::After(version.clone()), HashSet::new()),
            WatchFrom::Objects(at_least) => {
                (WatchStart::Initial, self.caught_up(request, &feed, at_least.as_ref(), deadline).await?)
            }
        };
        let resource = feed.resource().clone();
        let body = match feed.watch(&start, &hidden)? {
            Err(expired) => Body::whole(body::expired_at_once(&expired.to_string())),
            Ok(watch) => {
                let from = match start {
                    WatchStart::After(version) => Some(version),
                    WatchStart::Initial => None,
                };
                let watch = Arc::new(watch);
                let guard = self.guard(current, request, from, Arc::downgrade(&watch));
                let guard = self.shared.options.runtime.spawn(guard).abort_handle();
                Body::watch(WatchBody::new(watch, guard, self.watches.clone(), resource, shape, &options))
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some((200, headers, body))
    }

    /// Waits until the stream has what the guest itself wrote, and this version. Returns the uids of what the guest deleted
    /// and the stream still has; None if it takes too long.
    async fn caught_up(
        self: &Arc<Self>,
        request: &ResourceRequest,
        feed: &Feed,
        at_least: Option<&ResourceVersion>,
        deadline: Instant,
    ) -> Option<HashSet<Arc<str>>> {
        let key = ResourceKey { group: request.group.as_str().into(), plural: request.plural.as_str().into() };
        let scope = Scope { namespace: request.namespace.as_deref(), name: None };
        let (cache, until) = (feed.cache(), deadline.min(Instant::now() + PATIENCE));
        loop {
            // Subscribed to before the cache is asked, so that no change is missed in between.
            let changed = cache.changed();
            let mut decision = Decision::Forward;
            let mut has_version = false;
            {
                let writes = self.writes();
                cache.read(&mut |snapshot| {
                    let Some(position) = snapshot.position() else { return };
                    has_version = at_least.is_none_or(|version| position.is_at_least(version));
                    decision = writes.gate.decide(&key, scope, snapshot.as_view(), self.shared.now());
                });
            }
            let wait = match decision {
                Decision::Serve(hidden) if has_version => return Some(hidden),
                Decision::Serve(_) => until.saturating_duration_since(Instant::now()),
                Decision::Wait(time) => {
                    time.since(self.shared.now()).min(until.saturating_duration_since(Instant::now()))
                }
                Decision::Forward => {
                    self.list_after_unknown_outcome(&key, request);
                    return None;
                }
            };
            let _ = timeout(wait, changed).await;
            if Instant::now() >= until {
                return None;
            }
        }
    }

    /// Ends a watch when the right to it ends: the guest's rules, its identity's rights, or the host's own. Also one that
    /// began at a version that the stream never reaches, as after a restored backup.
    fn guard(
        self: &Arc<Self>,
        current: &Current,
        request: &ResourceRequest,
        from: Option<ResourceVersion>,
        watch: Weak<crate::informer::SharedWatch>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (guest, request, user) = (Arc::downgrade(self), request.clone(), current.access.user.clone());
        let mut changed = self.watches.access_changed();
        let began = Instant::now();
        async move {
            loop {
                let Some(recheck) = watch.upgrade().map(|watch| watch.feed().recheck()) else { return };
                // An error means that the guest is gone, which the next lines see.
                let _ = timeout(recheck, changed.changed()).await;
                let (Some(guest), Some(watch)) = (guest.upgrade(), watch.upgrade()) else { return };
                let access = guest.current.read().clone();
                drop(guest);
                if access.access.user != user || watch.feed().is_refused() {
                    watch.watcher().end(WatchEnd::Closed);
                } else if let Err(denied) = access.access.permissions.check(&request, ContentType::Json) {
                    watch.watcher().end(WatchEnd::Forbidden(denied.message(&access.access.name)));
                } else if let Ok(false) = Box::pin(watch.feed().allowed()).await {
                    watch.watcher().end(WatchEnd::Forbidden(forbidden(&request, &user)));
                } else if let Some(version) = from.as_ref().filter(|_| began.elapsed() > watch.feed().silence()) {
                    watch.expire_if_ahead(version);
                }
            }
        }
    }
}

/// What the API server says to one who lacks the right.
fn forbidden(request: &ResourceRequest, user: &str) -> String {
    let resource = match request.group.as_str() {
        "" => request.plural.clone(),
        group => format!("{}.{group}", request.plural),
    };
    let place = match &request.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    format!(
        "{resource} is forbidden: User \"{user}\" cannot watch resource \"{}\" in API group \"{}\" {place}",
        request.plural, request.group
    )
}
