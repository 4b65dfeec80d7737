//! What this crate measures.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The label of metrics per kind: `plural` or `plural.group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabel {
    /// As kubectl takes it.
    pub resource: String,
}

/// The labels of watch events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// As kubectl takes it.
    pub resource: String,
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub r#type: &'static str,
}

/// The labels of restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RestartLabels {
    /// As kubectl takes it.
    pub resource: String,
    /// Why the watch began anew.
    pub cause: &'static str,
}

/// Metrics of the informers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Open or reconnecting upstream watches.
    pub watch_streams: Family<ResourceLabel, Gauge>,
    /// Subscriptions to them.
    pub watch_subscribers: Family<ResourceLabel, Gauge>,
    /// Events received.
    pub watch_events: Family<EventLabels, Counter>,
    /// Reconnects and relists.
    pub watch_restarts: Family<RestartLabels, Counter>,
    /// Objects held.
    pub cache_objects: Family<ResourceLabel, Gauge>,
    /// Their JSON.
    pub cache_bytes: Family<ResourceLabel, Gauge>,
    /// Watches of guests that are served from the streams.
    pub shared_watches: Family<ResourceLabel, Gauge>,
    /// Events delivered to them.
    pub shared_watch_events: Family<EventLabels, Counter>,
    /// Events that were left out because a later one of the same object made them needless.
    pub shared_watch_compacted: Family<ResourceLabel, Counter>,
    /// Watches that were ended or refused because their version is too old.
    pub shared_watch_expired: Family<ResourceLabel, Counter>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("wasm_operator");
        registry.register("watch_streams", "Upstream watches", metrics.watch_streams.clone());
        registry.register("watch_subscribers", "Subscriptions to upstream watches", metrics.watch_subscribers.clone());
        registry.register("watch_events", "Events received from upstream watches", metrics.watch_events.clone());
        registry.register(
            "watch_restarts",
            "Upstream watches that began anew, by cause",
            metrics.watch_restarts.clone(),
        );
        registry.register("cache_objects", "Objects in the shared caches", metrics.cache_objects.clone());
        registry.register("cache_bytes", "Bytes of JSON in the shared caches", metrics.cache_bytes.clone());
        registry.register(
            "shared_watches",
            "Watches of guests that are served from upstream watches",
            metrics.shared_watches.clone(),
        );
        registry.register(
            "shared_watch_events",
            "Events delivered to watches of guests",
            metrics.shared_watch_events.clone(),
        );
        registry.register(
            "shared_watch_compacted",
            "Events for watches of guests that a later one of the same object made needless",
            metrics.shared_watch_compacted.clone(),
        );
        registry.register(
            "shared_watch_expired",
            "Watches of guests that ended because their version is too old",
            metrics.shared_watch_expired.clone(),
        );
        metrics
    }
}
