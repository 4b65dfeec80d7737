//! Watches of guests, served from the shared streams.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::timeout;
use wasm_operator_core::backoff::Backoff;
use wasm_operator_core::history::Expired;
use wasm_operator_core::object::ResourceVersion;
use wasm_operator_core::selector::FieldSelector;
use wasm_operator_core::watch::{Representation, Resource};

use super::filter::Filter;
use super::stream::WatchStart;
use super::view::StreamCache;
use super::watcher::{Next, Watcher};
use super::{Informers, Running, Scope, SubscriptionState};
use crate::gateway::Cache;
use crate::metrics::{EventLabels, Metrics, ResourceLabel};
use crate::rights::Unanswered;

/// How long a guest's list or watch waits for the first list of a stream that was begun for it. Default 5 s, half of a
/// request's time: then the server is asked instead.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// What a guest asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedScope {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Lower-case plural.
    pub plural: String,
    /// None: all namespaces, or a cluster-scoped kind.
    pub namespace: Option<String>,
    /// In the syntax of the Kubernetes API.
    pub label_selector: String,
    /// In the syntax of the Kubernetes API.
    pub field_selector: String,
    /// What the guest is to see of each object.
    pub representation: Representation,
}

/// The stream that serves a guest's lists and watches of one scope. It is kept for as long as this is, and for the linger
/// time after.
pub struct Feed {
    informers: Informers,
    running: Arc<Running>,
    scope: Scope,
    filter: Arc<Filter>,
    user: Arc<str>,
    name: Option<String>,
}

impl Informers {
    /// The stream for what `user` asks for, listed. None where the server has to be asked: the user may not list and
    /// watch this or it is not known, the kind or the selector is unknown, there are too many field selectors, or the stream does
    /// not get its list in time.
    pub(crate) async fn feed_of(&self, user: Arc<str>, asked: FeedScope) -> Option<Feed> {
        let resource = self.shared.kinds.resource(&asked.group, &asked.version, &asked.plural).await?;
        let mut scope = Scope {
            resource,
            namespaces: asked.namespace.into_iter().collect(),
            label_selector: asked.label_selector,
            field_selector: asked.field_selector,
            representation: asked.representation,
        };
        let fields = FieldSelector::parse(&scope.field_selector).ok()?;
        let filter = Arc::new(Filter::new(&scope).ok()?);
        let name = fields.single_name().map(str::to_owned);
        if !self.may_feed(&user, &scope, name.as_deref()).await.ok()? {
            return None;
        }
        let running = self.running_for(&scope, &user).await.ok()??;
        running.stream.want_history();
        scope.representation = running.stream.source.representation;
        let feed = Feed { informers: self.clone(), running, scope, filter, user, name };
        timeout(SYNC_PATIENCE, feed.listed()).await.ok()?.then_some(feed)
    }

    async fn may_feed(&self, user: &str, scope: &Scope, name: Option<&str>) -> Result<bool, Unanswered> {
        let namespace = scope.namespaces.first().map(String::as_str);
        self.may_watch(Some(user), &scope.resource, namespace, name).await
    }

    /// The stream for this scope; None if it would be one too many. Metadata comes from whole objects where somebody has them
    /// anyway.
    async fn running_for(&self, scope: &Scope, user: &Arc<str>) -> Result<Option<Arc<Running>>, Unanswered> {
        let whole = Scope { representation: Representation::Full, ..scope.clone() };
        let source = self.sources(&whole, Some(user)).await?.into_iter().next();
        if let Some(running) = source.and_then(|source| self.opened(&source)) {
            return Ok(Some(running));
        }
        let source = self.sources(scope, Some(user)).await?.into_iter().next();
        Ok(source.and_then(|source| self.open_if_few(source)))
    }
}

impl Feed {
    /// The kind.
    pub(crate) fn resource(&self) -> &Resource {
        &self.scope.resource
    }

    pub(crate) fn cache(&self) -> Arc<dyn Cache> {
        Arc::new(StreamCache(self.running.clone()))
    }

    /// Waits for the first list. False: there will be none soon.
    async fn listed(&self) -> bool {
        let stream = &self.running.stream;
        let mut moved = stream.moved();
        loop {
            moved.borrow_and_update();
            match stream.state() {
                SubscriptionState::Syncing => {}
                state => return state.is_basis(),
            }
            if moved.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Begins a watch. `hidden` are uids of objects that the guest itself deleted. None: the stream is no basis for one.
    pub(crate) fn watch(self, start: &WatchStart, hidden: &HashSet<Arc<str>>) -> Option<Result<SharedWatch, Expired>> {
        let watched = self.running.stream.watch(self.filter.clone(), start, hidden)?;
        Some(watched.map(|(id, watcher)| {
            let watch = SharedWatch { feed: self, id, watcher };
            watch.metrics().shared_watches.get_or_create(&watch.label()).inc();
            watch
        }))
    }

    /// Whether the guest's identity may still list and watch.
    pub(crate) async fn allowed(&self) -> Result<bool, Unanswered> {
        self.informers.may_feed(&self.user, &self.scope, self.name.as_deref()).await
    }

    /// How long to wait until that is asked again: guests that start together do not ask together.
    pub(crate) fn recheck(&self) -> Duration {
        let recheck = self.informers.shared.options.recheck;
        Backoff { base: recheck, max: recheck }.delay(0, &mut self.informers.random())
    }

    /// How long a stream may take to reach a version that the server has: it sends a bookmark every minute.
    pub(crate) fn silence(&self) -> Duration {
        self.informers.shared.options.silence
    }

    /// Whether the host itself may not watch this any more.
    pub(crate) fn is_refused(&self) -> bool {
        self.running.stream.is_refused()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.informers.linger(self.running.clone());
    }
}

/// One watch of a guest on a shared stream; dropping it ends it.
pub struct SharedWatch {
    feed: Feed,
    id: u64,
    watcher: Arc<Watcher>,
}

impl SharedWatch {
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) fn watcher(&self) -> &Arc<Watcher> {
        &self.watcher
    }

    pub(crate) fn next(&self, waker: &Waker) -> Next {
        self.watcher.next(waker)
    }

    /// The version for a bookmark, if one would tell the client something and nothing is on its way to it.
    pub(crate) fn bookmark(&self) -> Option<ResourceVersion> {
        self.feed.running.stream.bookmark(&self.watcher)
    }

    /// Ends the watch if the stream has not reached this version, from which the client began.
    pub(crate) fn expire_if_ahead(&self, version: &ResourceVersion) {
        self.feed.running.stream.expire_if_ahead(&self.watcher, version);
    }

    /// Counts what was delivered since the last time.
    pub(crate) fn count(&self, r#type: &'static str) {
        let labels = EventLabels { resource: self.label().resource, r#type };
        self.metrics().shared_watch_events.get_or_create(&labels).inc();
    }

    pub(crate) fn count_compacted(&self) {
        let compacted = self.watcher.take_compacted();
        if compacted > 0 {
            self.metrics().shared_watch_compacted.get_or_create(&self.label()).inc_by(compacted);
        }
    }

    pub(crate) fn count_expired(&self) {
        self.metrics().shared_watch_expired.get_or_create(&self.label()).inc();
    }

    fn metrics(&self) -> &Metrics {
        &self.feed.informers.shared.metrics
    }

    fn label(&self) -> ResourceLabel {
        ResourceLabel { resource: self.feed.scope.resource.to_string() }
    }
}

impl Drop for SharedWatch {
    fn drop(&mut self) {
        self.feed.running.stream.unwatch(self.id);
        self.count_compacted();
        self.metrics().shared_watches.get_or_create(&self.label()).dec();
    }
}
