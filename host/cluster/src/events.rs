//! Events on the host's own Pod, for what a user can act on.
//!
//! Reporting never waits: an Event goes into a bounded queue, and what does not fit is dropped. The same words are
//! reported once per ten minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How long the same Event is not repeated.
pub const REPEAT_AFTER: Duration = Duration::from_secs(600);

/// Events that wait to be sent. Default 64: more at once would say the same thing of many guests.
const QUEUE: usize = 64;

/// Different Events remembered for [`REPEAT_AFTER`]. Default 2,048, some 200 KiB; beyond that nothing new is reported.
const MAX_REMEMBERED: usize = 2_048;

/// Least time between two Events: a storm must not become load on the API server.
const SPACING: Duration = Duration::from_millis(200);

/// Time for one request.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest note in bytes, as the server has it.
const MAX_NOTE: usize = 1_024;

/// The Pod in which the host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPod {
    /// `POD_NAME`
    pub name: String,
    /// `POD_NAMESPACE`
    pub namespace: String,
    /// `POD_UID`; without it `kubectl describe pod` does not show the Events.
    pub uid: Option<String>,
}

/// Reports Events. Clones share the queue.
#[derive(Clone)]
pub struct EventRecorder {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    queue: mpsc::Sender<Report>,
    reported: Mutex<HashMap<(&'static str, String), Instant>>,
}

struct Report {
    reason: &'static str,
    note: String,
}

impl EventRecorder {
    /// Reports nothing: the host does not run in a Pod.
    pub fn disabled() -> Self {
        Self { inner: None }
    }

    /// Reports on this Pod with the host's own client, from a task on `runtime` that ends with the last clone.
    pub fn new(client: Client, pod: HostPod, runtime: &Handle) -> Self {
        let (queue, reports) = mpsc::channel(QUEUE);
        runtime.spawn(send_all(client, pod, reports));
        Self { inner: Some(Arc::new(Inner { queue, reported: Mutex::default() })) }
    }

    /// Reports something that went wrong with a guest. `reason` is one CamelCase word; `note` holds no text that a guest
    /// made up.
    pub fn warn(&self, reason: &'static str, guest: &str, note: &str) {
        tracing::debug!(reason, guest, note, "event");
        let Some(inner) = &self.inner else { return };
        let note = cut(note);
        let now = Instant::now();
        let mut reported = inner.reported.lock();
        if reported.len() >= MAX_REMEMBERED {
            reported.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        }
        let key = (reason, note.clone());
        if reported.len() >= MAX_REMEMBERED
            || reported.get(&key).is_some_and(|at| now.duration_since(*at) < REPEAT_AFTER)
        {
            return;
        }
        if inner.queue.try_send(Report { reason, note }).is_ok() {
            reported.insert(key, now);
        }
    }
}

fn cut(note: &str) -> String {
    let mut end = note.len().min(MAX_NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default().to_owned()
}

async fn send_all(client: Client, pod: HostPod, mut reports: mpsc::Receiver<Report>) {
    let mut count = 0_u64;
    while let Some(report) = reports.recv().await {
        count += 1;
        match timeout(SEND_TIMEOUT, send(&client, &pod, &report, count)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason = report.reason, "an Event was not accepted"),
            Err(_) => tracing::debug!(reason = report.reason, "the API server did not take an Event in time"),
        }
        sleep(SPACING).await;
    }
}

async fn send(client: &Client, pod: &HostPod, report: &Report, count: u64) -> Result<(), kube::Error> {
    let now = Timestamp::now();
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}.{count:x}", pod.name, now.as_microsecond()),
            "namespace": pod.namespace,
        },
        "eventTime": format!("{now:.6}"),
        "type": "Warning",
        "reason": report.reason,
        "action": "RunGuest",
        "note": report.note,
        "reportingController": "wasm-operator.dev/host",
        "reportingInstance": pod.name,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
        },
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.namespace);
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(event.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> (EventRecorder, mpsc::Receiver<Report>) {
        let (queue, reports) = mpsc::channel(QUEUE);
        (EventRecorder { inner: Some(Arc::new(Inner { queue, reported: Mutex::default() })) }, reports)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_words_are_reported_once_in_ten_minutes() {
        let (recorder, mut reports) = recorder();
        for _ in 0..5 {
            recorder.warn("Forbidden", "ring", "may not get secrets");
            recorder.warn("Forbidden", "ring", "may not list secrets");
        }
        assert_eq!(reports.try_recv().unwrap().note, "may not get secrets");
        assert_eq!(reports.try_recv().unwrap().note, "may not list secrets");
        assert!(reports.try_recv().is_err());
        tokio::time::advance(REPEAT_AFTER).await;
        recorder.warn("Forbidden", "ring", "may not get secrets");
        assert!(reports.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_drops_and_never_blocks() {
        let (recorder, mut reports) = recorder();
        for n in 0..10_000 {
            recorder.warn("Trap", "ring", &format!("note {n}"));
        }
        let mut count = 0;
        while reports.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, QUEUE);
        recorder.warn("Trap", "ring", "note 9999");
        assert!(reports.try_recv().is_ok(), "what was dropped is not remembered as reported");
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(1_000)).len(), MAX_NOTE);
        assert_eq!(cut(&format!("x{}", "ä".repeat(1_000))).len(), MAX_NOTE - 1);
    }
}
