//! Asks a prediction service about guests that have become idle. Its answers compete with the host's own rules; what it does
//! besides answering changes nothing but a metric.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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

/// When events reached a guest: at most [`MAX_HISTORY`], the oldest first. In the scheduler's time, which nobody can set: a wall clock
/// that jumps makes no gap between two events.
#[derive(Default)]
struct History(VecDeque<Time>);

impl History {
    fn push(&mut self, at: Time) {
        // Events that were queued at once are one, and what waited longer than a later one tells nothing of gaps.
        if self.0.back().is_some_and(|last| *last >= at) {
            return;
        }
        if self.0.len() == MAX_HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(at);
    }

    /// Its events by a wall clock that shows `wall` at `now`.
    fn by_wall_clock(&self, now: Time, wall: Timestamp) -> Vec<Timestamp> {
        self.0.iter().filter_map(|at| wall.checked_sub(now.since(*at)).ok()).collect()
    }
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

    /// An event reached the guest.
    pub(crate) fn event(&self, guest: GuestId, at: Time) {
        self.histories.lock().entry(guest).or_default().push(at);
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
        let (now, wall) = (self.scheduler.now(), Timestamp::now());
        let Some((events, last)) = self
            .histories
            .lock()
            .get(&guest)
            .and_then(|history| Some((history.by_wall_clock(now, wall), *history.0.back()?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn history(seconds: impl IntoIterator<Item = u64>) -> History {
        let mut history = History::default();
        seconds.into_iter().for_each(|seconds| history.push(at(seconds)));
        history
    }

    #[test]
    fn a_wall_clock_that_was_set_moves_events_and_makes_no_gap() {
        let history = history([10, 20, 40]);
        for wall in ["1970-01-01T00:00:20Z", "2026-11-23T12:00:00Z", "2199-12-31T23:59:59Z"] {
            let wall: Timestamp = wall.parse().unwrap();
            let ago = history.by_wall_clock(at(41), wall).into_iter().map(|event| wall.duration_since(event).as_secs());
            assert_eq!(ago.collect::<Vec<_>>(), [31, 21, 1]);
        }
    }

    #[test]
    fn a_wall_clock_before_all_time_loses_events_and_nothing_else() {
        assert_eq!(history([10, 20]).by_wall_clock(at(21), Timestamp::MIN), []);
    }

    #[test]
    fn a_history_goes_forward_and_keeps_the_latest() {
        assert_eq!(history([10, 20, 20, 15, 30]).0, [at(10), at(20), at(30)]);
        let long = history(0..MAX_HISTORY as u64 + 5);
        assert_eq!((long.0.len(), long.0.front()), (MAX_HISTORY, Some(&at(5))));
    }
}
