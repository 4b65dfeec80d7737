//! Shared informers: one upstream watch per kind and scope, whatever the number of guests that subscribe to it.
//!
//! Which stream serves a subscription: the cluster-wide one where the host may list and watch cluster-wide, else one for each
//! namespace. A label selector goes upstream, because a cache should follow what is managed and not the cluster's size,
//! unless a stream of everything is open anyway or there are many selectors. Namespaces and names are filtered here. Other field
//! selectors only the server can evaluate: of guests that watch for themselves few get a stream, the rest ask the server.
//! Metadata and whole objects are separate streams, so that nobody is given more than he asked for. Secrets are not shared.
//!
//! A subscription is told of every change in its scope, as its guest's rights allow; reconnects, bookmarks and relists
//! without change never reach it. What a subscriber sees is in `stream`, how a stream is
//! kept going in `machine` and `reader`, and how guests that watch for themselves are served in `feed`, `followers` and
//! `watcher`.

mod audience;
mod combined;
mod feed;
mod filter;
mod followers;
mod machine;
mod namespaces;
mod reader;
mod store;
mod stream;
mod subscription;
mod view;
mod watcher;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use wasm_operator_core::backoff::Random;
use wasm_operator_core::object::Change;
use wasm_operator_core::permission::Right;
use wasm_operator_core::request::Verb;
use wasm_operator_core::selector::{FieldSelector, SelectorError};
use wasm_operator_core::watch::{Representation, Resource, Watch};

use self::filter::Filter;
use self::stream::Stream;
use self::wire::Source;
use crate::kinds::Kinds;
use crate::metrics::Metrics;
use crate::rights::{Rights, Unanswered};

pub use self::feed::{Feed, FeedScope, SharedWatch};
pub use self::stream::WatchStart;
pub use self::subscription::Subscription;
pub use self::watcher::WatchEnd;
pub(crate) use self::watcher::{Next, Watcher};

/// Hears of changes. Called under the stream's lock by its reader, which must not wait: note the change and return. Neither
/// these methods nor anybody who holds a lock that they take may ask a [`Subscription`] for objects.
pub trait Subscriber: Send + Sync + 'static {
    /// An object in the subscription's scope was added, modified or deleted.
    fn changed(&self, change: &Change);
    /// The subscription's state changed.
    fn state(&self, state: &SubscriptionState);
    /// The cluster has an older history, as after a restored backup: versions from before mean nothing any more.
    fn history_lost(&self);
}

/// How a subscription is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionState {
    /// The first list is under way.
    Syncing,
    /// Up to date, as far as anybody can know.
    Synced,
    /// There are objects, and the connection is being made again.
    Restarting,
    /// It waits for something that only others can change.
    Parked {
        /// For what.
        reason: ParkReason,
        /// Whether there are objects from before.
        has_objects: bool,
    },
}

impl SubscriptionState {
    /// Whether the first list is complete.
    #[must_use]
    pub fn has_objects(&self) -> bool {
        match self {
            Self::Syncing => false,
            Self::Synced | Self::Restarting => true,
            Self::Parked { has_objects, .. } => *has_objects,
        }
    }

    /// Whether the objects are a basis for answers: listed, and somebody may and does follow them.
    pub(crate) fn is_basis(&self) -> bool {
        matches!(self, Self::Synced | Self::Restarting)
    }
}

/// What a parked subscription waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkReason {
    /// The API server does not serve the kind: its CustomResourceDefinition is missing.
    NotServed,
    /// The host may not list and watch it.
    HostForbidden,
    /// The guest's identity may not list and watch it.
    GuestForbidden,
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotServed => "the API server does not serve the kind",
            Self::HostForbidden => "the host may not list and watch it",
            Self::GuestForbidden => "the guest's ServiceAccount may not list and watch it",
        })
    }
}

/// What a subscription is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The kind.
    pub resource: Resource,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespaces: Vec<String>,
    /// In the syntax of the Kubernetes API.
    pub label_selector: String,
    /// In the syntax of the Kubernetes API.
    pub field_selector: String,
    /// What is held of each object.
    pub representation: Representation,
}

impl From<&Watch> for Scope {
    fn from(watch: &Watch) -> Self {
        Self {
            resource: watch.of.clone(),
            namespaces: watch.namespaces.clone(),
            label_selector: watch.label_selector.clone(),
            field_selector: watch.field_selector.clone(),
            representation: watch.representation,
        }
    }
}

/// How informers behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// A stream that is silent for so long is dead: the API server sends a bookmark every minute. Default 75 s.
    pub silence: Duration,
    /// How long a stream outlives its last subscription, so that a reload does not list anew. Default 10 s.
    pub linger: Duration,
    /// How often a subscription's right to list and watch is asked for. An answer that is used may be half as old.
    /// Default 40 s: a right that ends is noticed within a minute.
    pub recheck: Duration,
    /// The seed of all jitter. Default 0: set it, or hosts that start together stay in step.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(75),
            linger: Duration::from_secs(10),
            recheck: Duration::from_secs(40),
            seed: 0,
        }
    }
}

/// A stream and the task that reads it; dropping it ends both.
pub(crate) struct Running {
    pub(crate) stream: Arc<Stream>,
    reader: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// All streams of the host. Clones are handles to the same.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    rights: Rights,
    kinds: Kinds,
    metrics: Metrics,
    options: Options,
    /// Where readers run.
    runtime: Handle,
    streams: Mutex<HashMap<Source, Weak<Running>>>,
    /// Makes different random numbers from one seed.
    randoms: AtomicU64,
}

/// Streams of a kind that differ in their label selector. Default 8: beyond that one stream without a selector costs the
/// API server less, and the subscriptions are filtered here.
const MAX_SELECTED_STREAMS: usize = 8;

/// Streams of a kind with a field selector from which guests that watch for themselves are served. Default 8: each selector
/// that such a guest makes up would be one more watch with the host's identity. What is beyond goes to the server.
const MAX_FIELD_STREAMS: usize = 8;

impl Informers {
    /// Informers whose readers run on `runtime`.
    pub fn new(client: Client, rights: Rights, metrics: Metrics, options: Options, runtime: Handle) -> Self {
        let kinds = Kinds::new(client.clone());
        let (streams, randoms) = (Mutex::default(), AtomicU64::new(0));
        let shared = Shared { client, rights, kinds, metrics, options, runtime, streams, randoms };
        Self { shared: Arc::new(shared) }
    }

    /// Subscribes `user` (None: the host itself) to a scope. The subscriber hears of the objects that are there, as
    /// initial changes, and of every change after that, until the subscription is dropped.
    ///
    /// The objects come when `user` may list and watch them, and stop coming when that right ends.
    pub fn subscribe(
        &self,
        scope: &Scope,
        user: Option<Arc<str>>,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<Subscription, SelectorError> {
        let filter = Filter::new(scope)?;
        Ok(Subscription::begin(self.clone(), scope.clone(), filter, user, subscriber))
    }

    /// The streams that serve a scope: one wide stream if the host may have it, else one for each namespace.
    pub(crate) async fn sources(&self, scope: &Scope, user: Option<&Arc<str>>) -> Result<Vec<Source>, Unanswered> {
        let fields_are_local = FieldSelector::parse(&scope.field_selector).is_ok_and(|selector| selector.is_local());
        let source = |namespace: Option<&str>| Source {
            resource: scope.resource.clone(),
            namespace: namespace.map(Arc::from),
            label_selector: scope.label_selector.clone(),
            field_selector: if fields_are_local { String::new() } else { scope.field_selector.clone() },
            representation: scope.representation,
            private_to: user.filter(|_| is_secret(&scope.resource)).cloned(),
        };
        // Secrets of namespaces that nobody asked for are not to be read just because the host may.
        let wide = scope.namespaces.is_empty()
            || (!is_secret(&scope.resource) && self.may_watch(None, &scope.resource, None, None).await?);
        let sources: Vec<Source> = if wide {
            vec![source(None)]
        } else {
            scope.namespaces.iter().map(|namespace| source(Some(namespace))).collect()
        };
        let streams = self.shared.streams.lock();
        Ok(sources.into_iter().map(|source| shared_source(&streams, source)).collect())
    }

    /// Whether `user` may list and watch.
    pub(crate) async fn may_watch(
        &self,
        user: Option<&str>,
        resource: &Resource,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<bool, Unanswered> {
        for verb in [Verb::List, Verb::Watch] {
            let (group, plural) = (&resource.group, &resource.plural);
            let right = Right { verb, group, plural, subresource: None, namespace, name };
            if !self.shared.rights.allowed_within(user, &right, self.shared.options.recheck / 2).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn random(&self) -> Random {
        Random::new(self.shared.options.seed.wrapping_add(self.shared.randoms.fetch_add(1, Ordering::Relaxed)))
    }

    /// The stream of this source, if there is one.
    pub(crate) fn opened(&self, source: &Source) -> Option<Arc<Running>> {
        self.shared.streams.lock().get(source).and_then(Weak::upgrade)
    }

    /// The stream of this source, begun if need be.
    pub(crate) fn open(&self, source: Source) -> Arc<Running> {
        self.open_among(&mut self.shared.streams.lock(), source)
    }

    /// [`open`](Self::open), unless there are too many streams with a field selector.
    pub(crate) fn open_if_few(&self, source: Source) -> Option<Arc<Running>> {
        // Counted and opened under one lock: a guest may ask for many at once.
        let mut streams = self.shared.streams.lock();
        has_place(&streams, &source).then(|| self.open_among(&mut streams, source))
    }

    fn open_among(&self, streams: &mut HashMap<Source, Weak<Running>>, source: Source) -> Arc<Running> {
        if let Some(running) = streams.get(&source).and_then(Weak::upgrade) {
            return running;
        }
        streams.retain(|_, running| is_open(running));
        let stream = Arc::new(Stream::new(source.clone(), self.shared.metrics.clone()));
        let silence = self.shared.options.silence;
        let reader = reader::run(self.shared.client.clone(), Arc::downgrade(&stream), silence, self.random());
        let running = Arc::new(Running { stream, reader: self.shared.runtime.spawn(reader).abort_handle() });
        streams.insert(source, Arc::downgrade(&running));
        running
    }

    /// Lets a stream go after the linger time.
    pub(crate) fn linger(&self, running: Arc<Running>) {
        let linger = self.shared.options.linger;
        self.shared.runtime.spawn(async move {
            tokio::time::sleep(linger).await;
            drop(running);
        });
    }
}

/// The source itself, or the one without its label selector: if that is open already, or if there are too many selectors.
fn shared_source(streams: &HashMap<Source, Weak<Running>>, source: Source) -> Source {
    if source.label_selector.is_empty() {
        return source;
    }
    let everything = Source { label_selector: String::new(), ..source.clone() };
    let others = streams.iter().filter(|(other, running)| {
        is_open(running)
            && other.label_selector != source.label_selector
            && Source { label_selector: String::new(), ..(*other).clone() } == everything
    });
    if streams.get(&everything).is_some_and(is_open) || others.count() >= MAX_SELECTED_STREAMS {
        everything
    } else {
        source
    }
}

/// Whether this is open, or may be opened beside the others with a field selector.
fn has_place(streams: &HashMap<Source, Weak<Running>>, source: &Source) -> bool {
    if source.field_selector.is_empty() || streams.get(source).is_some_and(is_open) {
        return true;
    }
    let plain =
        |source: &Source| Source { label_selector: String::new(), field_selector: String::new(), ..source.clone() };
    let everything = plain(source);
    let others = streams
        .iter()
        .filter(|(other, running)| is_open(running) && !other.field_selector.is_empty() && plain(other) == everything);
    others.count() < MAX_FIELD_STREAMS
}

fn is_open(running: &Weak<Running>) -> bool {
    running.strong_count() > 0
}

fn is_secret(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "secrets"
}
