//! Reads with `resourceVersion=0`: answered from the shared caches, under the read-your-writes gate. So are lists without a
//! version of guests that watch for themselves: what they keep of them is as old as their watch anyway.
//!
//! The cache may only say yes. Where it cannot answer, or the guest's right is missing or unknown, the request goes to
//! the API server and that decides.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, timeout};
use wasm_operator_core::gate::{Decision, Gate, ResourceKey, Scope, Unseen};
use wasm_operator_core::object::{Object, ObjectRef, ResourceVersion};
use wasm_operator_core::permission::Right;
use wasm_operator_core::request::{Accept, ResourceRequest, Shape, Verb};
use wasm_operator_core::selector::{FieldSelector, LabelSelector};
use wasm_operator_core::watch::Representation;

use super::body::collect;
use super::{Body, Cache, Current, GuestGateway, render};
use crate::informer::Feed;

/// A fresh list of one item has to be this small. 1 MiB: the largest object is 1.5 MiB in etcd, and metadata is asked for.
const MAX_LIST_OF_ONE: u64 = 1 << 20;

/// A read that the cache may answer.
pub(crate) struct CachedRead {
    shape: Shape,
    labels: LabelSelector,
    fields: FieldSelector,
    /// The newest state is asked for: a cache that has lost its connection is not to answer.
    of_now: bool,
}

/// How far a cache's word goes for a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// What it does not hold does not exist.
    Everything,
    /// It holds what its selectors select, so only what it holds can be answered.
    Selected,
}

/// What a cache has to say.
enum Found {
    Object(Option<Arc<Object>>),
    List(Vec<Arc<Object>>, ResourceVersion),
}

enum Turn {
    Answer(Found, Arc<dyn Cache>),
    Wait(BoxFuture<'static, ()>, wasm_operator_core::timer::Time),
    Forward,
}

/// Does the request ask for any version at all, and may it then be sent on without one? True for what rule 13 covers.
pub(crate) fn asks_for_any_version(request: &ResourceRequest) -> bool {
    matches!(request.verb, Verb::Get | Verb::List)
        // Exactly `0`; the server also takes `00`, but as a version.
        && request.query.resource_version.as_deref() == Some("0")
        && request.query.continue_token.is_none()
        && matches!(request.query.resource_version_match.as_deref(), None | Some("NotOlderThan"))
}

/// A list of the newest state, as client libraries begin a watch.
fn is_list_of_now(request: &ResourceRequest) -> bool {
    let query = &request.query;
    request.verb == Verb::List
        && query.resource_version.as_deref().is_none_or(str::is_empty)
        && query.resource_version_match.is_none()
        && query.send_initial_events.is_none()
        && query.continue_token.is_none()
}

impl CachedRead {
    /// None: only the server can answer this. `shared_watches`: the guest watches for itself.
    pub(crate) fn of(request: &ResourceRequest, accept: &Accept, shared_watches: bool) -> Option<Self> {
        let of_now = shared_watches && is_list_of_now(request);
        if !of_now && !asks_for_any_version(request) || request.subresource.is_some() {
            return None;
        }
        let shape = match (accept.shape?, request.verb) {
            (Shape::Full, _) => Shape::Full,
            (Shape::Metadata, Verb::Get) => Shape::Metadata,
            (Shape::MetadataList, Verb::List) => Shape::MetadataList,
            // The server answers 406.
            _ => return None,
        };
        let labels = LabelSelector::parse(request.query.label_selector.as_deref().unwrap_or("")).ok()?;
        let fields = FieldSelector::parse(request.query.field_selector.as_deref().unwrap_or("")).ok()?;
        fields.is_local().then_some(Self { shape, labels, fields, of_now })
    }
}

impl GuestGateway {
    /// The answer from the cache, with its status code; None when the request has to be forwarded. `feed`: what the
    /// watch that follows will be served from. Where it can, it gives the list as well, so that the two join.
    pub(super) async fn cached(
        self: &Arc<Self>,
        current: &Current,
        request: &ResourceRequest,
        accept: &Accept,
        feed: Option<&Feed>,
        deadline: Instant,
    ) -> Option<(u16, HeaderMap, Body)> {
        let read = CachedRead::of(request, accept, current.access.shared_watches)?;
        let key = ResourceKey { group: request.group.as_str().into(), plural: request.plural.as_str().into() };
        // First what costs nothing: without a cache there is nothing to ask a right for.
        let feed = feed.map(Feed::cache);
        if self.candidates(request, &read, feed.as_ref()).is_empty() {
            return None;
        }
        let right = Right::of(request, request.verb);
        if !self.shared.rights.allowed(Some(&current.access.user), &right).await.unwrap_or(false) {
            return None;
        }
        loop {
            match self.turn(request, &read, &key, feed.as_ref()) {
                Turn::Answer(found, cache) => return answer(request, &read, found, &*cache, current),
                Turn::Wait(changed, until) => {
                    let wait = until.since(self.shared.now()).min(deadline.saturating_duration_since(Instant::now()));
                    let _ = timeout(wait, changed).await;
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Turn::Forward => {
                    self.list_after_unknown_outcome(&key, request);
                    return None;
                }
            }
        }
    }

    fn candidates(
        &self,
        request: &ResourceRequest,
        read: &CachedRead,
        feed: Option<&Arc<dyn Cache>>,
    ) -> Vec<(Arc<dyn Cache>, Knows)> {
        if let Some(feed) = feed
            && let Some(knows) = knows(&**feed, request, read)
        {
            return vec![(feed.clone(), knows)];
        }
        let caches = self.caches(&request.group, &request.plural).into_iter();
        caches.filter_map(|cache| knows(&*cache, request, read).map(|knows| (cache, knows))).collect()
    }

    /// Asks each cache in turn; waits for one only when none can answer now.
    fn turn(
        &self,
        request: &ResourceRequest,
        read: &CachedRead,
        key: &ResourceKey,
        feed: Option<&Arc<dyn Cache>>,
    ) -> Turn {
        let scope = Scope { namespace: request.namespace.as_deref(), name: request.name.as_deref() };
        let now = self.shared.now();
        let mut wait = None;
        let candidates = self.candidates(request, read, feed);
        let mut writes = self.writes();
        for (cache, knows) in candidates {
            // Subscribed to before the cache is asked, so that no change is missed in between.
            let changed = cache.changed();
            let mut found = None;
            let mut decision = Decision::Forward;
            cache.read(&mut |snapshot| {
                let Some(position) = snapshot.position() else { return };
                if read.of_now && !snapshot.is_connected() {
                    return;
                }
                if knows == Knows::Selected && named(request).and_then(|object| snapshot.get(&object)).is_none() {
                    return;
                }
                decision = writes.gate.decide(key, scope, snapshot.as_view(), now);
                let Decision::Serve(hidden) = &decision else { return };
                found = Some(match named(request) {
                    Some(object) => {
                        let object = snapshot.get(&object).filter(|o| !hidden.contains(&o.metadata.uid));
                        // The guest has deleted it; a successor may not be selected.
                        if knows == Knows::Selected && object.is_none() {
                            return;
                        }
                        Found::Object(object)
                    }
                    None => {
                        let mut items = snapshot.list(request.namespace.as_deref());
                        items.retain(|item| !hidden.contains(&item.metadata.uid));
                        Found::List(items, position)
                    }
                });
            });
            match (decision, found) {
                (Decision::Serve(_), Some(found)) => {
                    self.settle(&mut writes.gate, key);
                    return Turn::Answer(found, cache);
                }
                (Decision::Wait(until), _) if wait.is_none() => wait = Some((changed, until)),
                _ => {}
            }
        }
        match wait {
            Some((changed, until)) => Turn::Wait(changed, until),
            None => Turn::Forward,
        }
    }

    /// Lets the gate forget what every cache of the resource has seen.
    pub(super) fn settle(&self, gate: &mut Gate, key: &ResourceKey) {
        if !gate.remembers(key) {
            return;
        }
        let mut unseen = Unseen::default();
        for cache in self.caches(&key.group, &key.plural) {
            cache.read(&mut |snapshot| gate.look(key, snapshot.as_view(), &mut unseen));
        }
        gate.settle(key, &unseen, self.shared.now());
    }

    pub(super) fn caches(&self, group: &str, plural: &str) -> Vec<Arc<dyn Cache>> {
        let user = self.current.read().access.user.clone();
        self.shared.caches.caches(&user, group, plural)
    }

    /// After a write whose outcome is unknown: finds out, in the background and with the host's own identity, which
    /// version the cache must have passed before this guest reads from it again.
    pub(super) fn list_after_unknown_outcome(self: &Arc<Self>, key: &ResourceKey, request: &ResourceRequest) {
        let generation = {
            let mut writes = self.writes();
            match writes.gate.needs_list(key) {
                Some(generation) if writes.listing.insert(key.clone()) => generation,
                _ => return,
            }
        };
        let mut list = request.clone();
        list.verb = Verb::List;
        list.name = None;
        list.subresource = None;
        list.query = wasm_operator_core::request::Query { limit: Some(1), ..Default::default() };
        let (guest, key, path) = (self.clone(), key.clone(), list.to_path_and_query());
        self.shared.options.runtime.spawn(async move {
            let version = guest.fresh_version(&path).await;
            let mut writes = guest.writes();
            writes.listing.remove(&key);
            match version {
                Some(version) => writes.gate.listed(&key, generation, version),
                None => tracing::debug!(path, "no list after an unknown outcome; the next read tries again"),
            }
        });
    }

    async fn fresh_version(&self, path: &str) -> Option<ResourceVersion> {
        #[derive(serde::Deserialize)]
        struct List {
            metadata: Metadata,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            resource_version: String,
        }
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
            .body(kube::client::Body::empty())
            .ok()?;
        let list = async {
            let answer = self.shared.client.send(request).await.ok().filter(|answer| answer.status().is_success())?;
            let body = collect(answer.into_body(), MAX_LIST_OF_ONE).await.ok()?;
            serde_json::from_slice::<List>(&body).ok()
        };
        let list = timeout(wasm_operator_core::gate::MAX_WAIT, list).await.ok()??;
        Some(ResourceVersion::new(&list.metadata.resource_version))
    }
}

/// What the cache knows of the read; None if it cannot answer it.
fn knows(cache: &dyn Cache, request: &ResourceRequest, read: &CachedRead) -> Option<Knows> {
    let represents = read.shape != Shape::Full || cache.representation() == Representation::Full;
    let namespace = cache.namespace().is_none() || cache.namespace() == request.namespace.as_deref();
    if cache.resource().version != request.version || !represents || !namespace {
        return None;
    }
    let (labels, fields) = cache.selectors();
    let asked =
        (request.query.label_selector.as_deref().unwrap_or(""), request.query.field_selector.as_deref().unwrap_or(""));
    if labels.is_empty() && fields.is_empty() || request.verb == Verb::List && (labels, fields) == asked {
        return Some(Knows::Everything);
    }
    let object = named(request)?;
    let mut holds = false;
    cache.read(&mut |snapshot| holds = snapshot.get(&object).is_some());
    holds.then_some(Knows::Selected)
}

/// The object that a read by name asks for.
fn named(request: &ResourceRequest) -> Option<ObjectRef> {
    let name = request.name.as_deref()?;
    Some(ObjectRef { namespace: request.namespace.as_deref().map(Arc::from), name: name.into() })
}

fn answer(
    request: &ResourceRequest,
    read: &CachedRead,
    found: Found,
    cache: &dyn Cache,
    current: &Current,
) -> Option<(u16, HeaderMap, Body)> {
    let (code, json) = match found {
        Found::Object(Some(object)) => (200, render::object(&object, read.shape)),
        Found::Object(None) => (404, render::not_found(request)),
        Found::List(mut items, position) => {
            items.retain(|item| read.labels.matches(&item.metadata.labels) && read.fields.matches(&item.metadata));
            (200, render::list(cache.resource(), items, &position, read.shape))
        }
    };
    let limit = current.access.limits.response_bytes;
    let (code, json) = if json.len() as u64 > limit {
        // All at once it is too much, but the server gives it in the pages that are asked for.
        if read.of_now && request.query.limit.is_some() {
            return None;
        }
        let refusal = super::api::answer_too_large(limit);
        (refusal.code, refusal.to_status())
    } else {
        (code, json)
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some((code, headers, Body::whole(json)))
}
