//! Asks a prediction service about guests that have become idle. Its answers compete with the host's own rules; what it does
//! besides answering changes nothing but a metric.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use wasm_operator_core::dispatch::{GuestId, Time};
use wasm_operator_prediction_client::{Client, MAX_HISTORY};

use crate::scheduler::Scheduler;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// The service, and the events that it is told of.
pub(crate) struct Forecasts {
    client: Client,
    scheduler: Arc<Scheduler>,
    histories: Mutex<HashMap<GuestId, History>>,
    requests: Family<Labels, Counter>,
}

#[derive(Default)]
struct History {
    /// At most [`MAX_HISTORY`], the oldest first.
    events: VecDeque<Timestamp>,
    /// The last of them in the scheduler's time.
    last: Time,
}

impl Forecasts {
    pub(crate) fn new(client: Client, scheduler: Arc<Scheduler>, registry: &mut Registry) -> Self {
        let requests = Family::<Labels, Counter>::default();
        registry.register(
            "wasm_operator_prediction_service_requests",
            "Questions to the prediction service by result: `ok`, or why there is no forecast",
            requests.clone(),
        );
        Self { client, scheduler, histories: Mutex::default(), requests }
    }

    /// An event reached the guest, `at` in the scheduler's time.
    pub(crate) fn event(&self, guest: GuestId, at: Time, wall: SystemTime) {
        let Ok(wall) = Timestamp::try_from(wall) else { return };
        let mut histories = self.histories.lock();
        let history = histories.entry(guest).or_default();
        // A clock that was set back would make a history that goes back: begin anew.
        if history.events.back().is_some_and(|last| *last >= wall) {
            history.events.clear();
        }
        history.events.push_back(wall);
        if history.events.len() > MAX_HISTORY {
            history.events.pop_front();
        }
        history.last = at;
    }

    /// The guest is gone.
    pub(crate) fn forget(&self, guest: GuestId) {
        self.histories.lock().remove(&guest);
    }

    /// Asks when the guest's next event is due, if it is idle. The answer is weighed when it comes.
    pub(crate) async fn ask(&self, guest: GuestId, name: &str) {
        if self.scheduler.ask(|dispatcher, _| dispatcher.idle_since(guest)).is_none() {
            return;
        }
        let Some((events, last)) = self
            .histories
            .lock()
            .get(&guest)
            .map(|history| (history.events.iter().copied().collect::<Vec<_>>(), history.last))
        else {
            return;
        };
        let answer = self.client.predict(name, &events).await;
        let result = answer.as_ref().map_or_else(|refused| refused.name(), |_| "ok");
        self.requests.get_or_create(&Labels { result }).inc();
        if let Ok(ahead) = answer {
            self.scheduler.tell(|dispatcher, now| dispatcher.advise(now, guest, last + ahead));
        }
    }
}
