//! What the gateway measures.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The labels of a guest's request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// The guest.
    pub guest: Arc<str>,
    /// RBAC's word.
    pub verb: &'static str,
    /// `plural` or `plural.group` of a resource that the guest's rules name, else `other`.
    pub resource: Arc<str>,
    /// HTTP status code.
    pub code: u16,
}

/// The labels of a denied request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeniedLabels {
    /// The guest.
    pub guest: Arc<str>,
    /// RBAC's word.
    pub verb: &'static str,
    /// As in [`CallLabels`].
    pub resource: Arc<str>,
}

/// The labels that controllers' dashboards know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP status code, or `<error>`.
    pub code: String,
    /// HTTP method.
    pub method: &'static str,
    /// The API server.
    pub host: String,
}

/// The labels of the duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// HTTP method, as client-go has it here.
    pub verb: &'static str,
    /// The API server.
    pub host: String,
}

/// Metrics of the gateway. Clones share their values.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    /// Requests of guests to the Kubernetes API, however they were answered.
    pub api_calls: Family<CallLabels, Counter>,
    /// Requests that the guest's rules do not allow.
    pub api_denied: Family<DeniedLabels, Counter>,
    /// Requests that went to the API server, resent ones included.
    pub requests: Family<RequestLabels, Counter>,
    /// Time to the head of the answer, in seconds.
    pub durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    /// What there is of each guest, so that it can go with the guest.
    series: Arc<Mutex<HashMap<Arc<str>, Series>>>,
}

#[derive(Debug, Default)]
struct Series {
    calls: HashSet<CallLabels>,
    denied: HashSet<DeniedLabels>,
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self {
            api_calls: Family::default(),
            api_denied: Family::default(),
            requests: Family::default(),
            // client-go's buckets.
            durations: Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0])
            }),
            series: Arc::default(),
        }
    }
}

impl GatewayMetrics {
    /// Counts for this guest from now on.
    pub(super) fn add(&self, guest: &Arc<str>) {
        self.series.lock().entry(guest.clone()).or_default();
    }

    /// Takes the guest's series away. What it still has under way is not counted.
    pub(super) fn remove(&self, guest: &str) {
        let mut all = self.series.lock();
        let Some(series) = all.remove(guest) else { return };
        for labels in &series.calls {
            self.api_calls.remove(labels);
        }
        for labels in &series.denied {
            self.api_denied.remove(labels);
        }
    }

    pub(super) fn called(&self, labels: CallLabels) {
        // Under the lock, so that no series comes into being behind the back of `remove`.
        let mut all = self.series.lock();
        let Some(series) = all.get_mut(&labels.guest) else { return };
        self.api_calls.get_or_create(&labels).inc();
        series.calls.insert(labels);
    }

    pub(super) fn denied(&self, labels: DeniedLabels) {
        let mut all = self.series.lock();
        let Some(series) = all.get_mut(&labels.guest) else { return };
        self.api_denied.get_or_create(&labels).inc();
        series.denied.insert(labels);
    }

    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("rest_client_requests", "Requests to the API server", metrics.requests.clone());
        registry.register(
            "rest_client_request_duration_seconds",
            "Time to the head of the API server's answer",
            metrics.durations.clone(),
        );
        let registry = registry.sub_registry_with_prefix("wasm_operator");
        registry.register("api_calls", "Requests of guests to the Kubernetes API", metrics.api_calls.clone());
        registry.register("api_denied", "Requests that a guest's rules do not allow", metrics.api_denied.clone());
        metrics
    }
}
