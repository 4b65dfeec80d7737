//! Laps, as the driver sees them: by one watch that is open before the first.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use harness::ring::nonce_of;
use harness::{Context as _, Error, Result, anyhow, bail};
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Events that wait for the driver: more than the longest lap has.
const WAITING_EVENTS: usize = 4_096;

/// A nonce in a namespace.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) namespace: String,
    pub(crate) nonce: i64,
    /// When the event came.
    pub(crate) at: Instant,
}

/// A watch of all namespaces. Each event is stamped by a task of its own, so that nothing the driver waits for delays the stamp.
pub(crate) struct Eye {
    arrivals: mpsc::Receiver<Result<Arrival>>,
    task: JoinHandle<()>,
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Eye {
    /// Sees everything from now on.
    pub(crate) async fn open(objects: Api<DynamicObject>) -> Result<Self> {
        let list = objects.list_metadata(&ListParams::default().limit(1)).await?;
        let mut version = list.metadata.resource_version.unwrap_or_default();
        let (sender, arrivals) = mpsc::channel(WAITING_EVENTS);
        // Open when this returns, and not some time later.
        let first = objects.watch(&WatchParams::default(), &version).await?;
        let task = tokio::spawn(async move {
            let mut events = first.boxed();
            loop {
                if let Err(error) = follow(pin!(events), &mut version, &sender).await {
                    // The receiver may be gone.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
                // The server ends each watch after some minutes.
                match objects.watch(&WatchParams::default(), &version).await {
                    Ok(again) => events = again.boxed(),
                    Err(error) => {
                        let _ = sender.send(Err(error.into())).await;
                        return;
                    }
                }
            }
        });
        Ok(Self { arrivals, task })
    }

    /// The next event. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Result<Arrival> {
        self.arrivals.recv().await.context("the driver's watch has ended")?
    }

    /// Waits until this nonce has been in each of these namespaces; when it came to each.
    pub(crate) async fn lap(&mut self, nonce: i64, namespaces: &[String], patience: Duration) -> Result<Vec<Instant>> {
        let deadline = Instant::now() + patience;
        let places: HashMap<&str, usize> =
            namespaces.iter().enumerate().map(|(place, namespace)| (namespace.as_str(), place)).collect();
        let mut seen: Vec<Option<Instant>> = vec![None; namespaces.len()];
        let mut missing = namespaces.len();
        while missing > 0 {
            let arrival = match timeout_at(deadline, self.next()).await {
                Ok(arrival) => arrival?,
                Err(_) => bail!("{}", stopped(nonce, namespaces, &seen, patience)),
            };
            let place = places.get(arrival.namespace.as_str()).filter(|_| arrival.nonce == nonce);
            if let Some(slot) = place.and_then(|place| seen.get_mut(*place)).filter(|slot| slot.is_none()) {
                *slot = Some(arrival.at);
                missing -= 1;
            }
        }
        seen.into_iter().collect::<Option<_>>().context("a namespace without an arrival")
    }
}

fn stopped(nonce: i64, namespaces: &[String], seen: &[Option<Instant>], patience: Duration) -> String {
    let first = namespaces.iter().zip(seen).find_map(|(namespace, seen)| seen.is_none().then_some(namespace));
    let count = seen.iter().flatten().count();
    format!(
        "nonce {nonce} did not reach `{}` within {} s; it has been in {count} of {} namespaces",
        first.map(String::as_str).unwrap_or_default(),
        patience.as_secs(),
        namespaces.len()
    )
}

async fn follow(
    mut events: std::pin::Pin<&mut futures::stream::BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>>,
    version: &mut String,
    sender: &mpsc::Sender<Result<Arrival>>,
) -> Result<()> {
    while let Some(event) = events.next().await {
        let at = Instant::now();
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event? else { continue };
        *version = object.resource_version().unwrap_or_default();
        let (Some(namespace), Some(nonce)) = (object.namespace(), nonce_of(Some(&object))) else { continue };
        sender.send(Ok(Arrival { namespace, nonce, at })).await.map_err(|_| anyhow!("nobody listens"))?;
    }
    Ok::<_, Error>(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its arrivals come one millisecond apart.
    fn eye(arrivals: &[(&str, i64)]) -> Eye {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let start = Instant::now();
        for (milliseconds, (namespace, nonce)) in (0..).zip(arrivals) {
            let at = start + Duration::from_millis(milliseconds);
            sender.try_send(Ok(Arrival { namespace: (*namespace).to_owned(), nonce: *nonce, at })).unwrap();
        }
        let task = tokio::spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        Eye { arrivals: receiver, task }
    }

    #[tokio::test]
    async fn a_lap_counts_the_first_arrival_of_its_own_nonce() {
        let mut eye = eye(&[("a", 1), ("a", 2), ("elsewhere", 2), ("a", 2), ("b", 1), ("b", 2)]);
        let arrivals = eye.lap(2, &["a".to_owned(), "b".to_owned()], Duration::from_secs(60)).await.unwrap();
        let between = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
        assert_eq!(between, [Duration::from_millis(4)]);
    }

    #[tokio::test]
    async fn a_lap_that_stops_says_where() {
        let mut eye = eye(&[("a", 1)]);
        let error = eye.lap(1, &["a".to_owned(), "b".to_owned()], Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("`b`") && error.to_string().contains("1 of 2"), "{error}");
    }
}
