//! Shared informers: one upstream watch per kind and scope, whatever the number of guests that subscribe to it.
//!
//! A subscription is told of every change in its scope, as its guest's rights allow; reconnects, bookmarks and relists
//! without change never reach it. What a subscriber sees is in [`stream`]; how the stream is kept going is in [`reader`].

mod filter;
mod reader;
mod store;
mod stream;
mod subscription;
mod view;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use wasm_operator_core::object::Change;
use wasm_operator_core::permission::Right;
use wasm_operator_core::request::Verb;
use wasm_operator_core::selector::{FieldSelector, LabelSelector, SelectorError};
use wasm_operator_core::watch::{Representation, Resource, Watch};

use self::stream::Stream;
use self::wire::Source;
use crate::metrics::Metrics;
use crate::rights::Rights;

pub use self::subscription::Subscription;
pub use self::view::CacheView;

/// Hears of changes. Called by the reader of a stream, which must not wait: note the change and return.
pub trait Subscriber: Send + Sync + 'static {
    /// An object in the subscription's scope was added, modified or deleted.
    fn changed(&self, change: &Change);
    /// The subscription's state changed.
    fn state(&self, state: &SubscriptionState);
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
    /// How often a subscription's right to list and watch is asked for. Default 45 s, as long as an answer is kept.
    pub recheck: Duration,
    /// The seed of all jitter.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(75),
            linger: Duration::from_secs(10),
            recheck: crate::rights::ANSWER_TTL,
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
    metrics: Metrics,
    options: Options,
    /// Where readers run.
    runtime: Handle,
    streams: Mutex<HashMap<Source, Weak<Running>>>,
}

impl Informers {
    /// Informers whose readers run on `runtime`.
    pub fn new(client: Client, rights: Rights, metrics: Metrics, options: Options, runtime: Handle) -> Self {
        let shared = Shared { client, rights, metrics, options, runtime, streams: Mutex::default() };
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
        LabelSelector::parse(&scope.label_selector)?;
        FieldSelector::parse(&scope.field_selector)?;
        Ok(Subscription::begin(self.clone(), scope.clone(), user, subscriber))
    }

    /// A complete cache of this kind that covers the namespace (None: all), if there is one.
    #[must_use]
    pub fn cached(&self, resource: &Resource, namespace: Option<&str>, representation: Representation) -> Option<CacheView> {
        let source = |namespace: Option<&str>| Source {
            resource: resource.clone(),
            namespace: namespace.map(Arc::from),
            label_selector: String::new(),
            field_selector: String::new(),
            representation,
            private_to: None,
        };
        let streams = self.shared.streams.lock();
        [None, namespace]
            .into_iter()
            .filter_map(|wide| streams.get(&source(wide))?.upgrade())
            .find(|running| running.stream.is_synced())
            .map(|running| CacheView::new(running, namespace.map(Arc::from)))
    }

    /// The streams that serve a scope: one wide stream if the host may have it, else one for each namespace.
    pub(crate) async fn sources(&self, scope: &Scope, user: Option<&Arc<str>>) -> Vec<Source> {
        let fields_are_local = FieldSelector::parse(&scope.field_selector).is_ok_and(|selector| selector.is_local());
        let source = |namespace: Option<&str>| Source {
            resource: scope.resource.clone(),
            namespace: namespace.map(Arc::from),
            label_selector: scope.label_selector.clone(),
            field_selector: if fields_are_local { String::new() } else { scope.field_selector.clone() },
            representation: scope.representation,
            private_to: user.filter(|_| is_secret(&scope.resource)).cloned(),
        };
        if scope.namespaces.is_empty() || self.host_may(&scope.resource).await {
            vec![source(None)]
        } else {
            scope.namespaces.iter().map(|namespace| source(Some(namespace))).collect()
        }
    }

    async fn host_may(&self, resource: &Resource) -> bool {
        // Secrets of namespaces that nobody asked for are not to be read just because the host may.
        !is_secret(resource) && self.may_watch(None, resource, None).await == Ok(true)
    }

    /// Whether `user` may list and watch; Err if that is not known.
    pub(crate) async fn may_watch(
        &self,
        user: Option<&str>,
        resource: &Resource,
        namespace: Option<&str>,
    ) -> Result<bool, ()> {
        for verb in [Verb::List, Verb::Watch] {
            let right =
                Right { verb, group: &resource.group, plural: &resource.plural, subresource: None, namespace, name: None };
            match self.shared.rights.allowed(user, &right).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    tracing::debug!(%error, "cannot check a right");
                    return Err(());
                }
            }
        }
        Ok(true)
    }

    /// The stream of this source, begun if need be.
    pub(crate) fn open(&self, source: Source) -> Arc<Running> {
        let mut streams = self.shared.streams.lock();
        if let Some(running) = streams.get(&source).and_then(Weak::upgrade) {
            return running;
        }
        streams.retain(|_, running| running.strong_count() > 0);
        let stream = Arc::new(Stream::new(source.clone(), self.shared.metrics.clone()));
        let reader = reader::run(self.shared.client.clone(), Arc::downgrade(&stream), self.shared.options.clone());
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

fn is_secret(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "secrets"
}
