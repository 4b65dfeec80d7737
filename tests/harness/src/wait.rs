//! Waiting for what has to happen, with a deadline and with what was last seen.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::StreamExt as _;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt as _};
use tokio::time::{Instant, timeout_at};

/// Every wait that is not about time itself. Only a failing test waits that long; a machine that compiles on all cores beside must not fail one.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often what cannot be watched (metrics, files, processes) is looked at.
const POLL: Duration = Duration::from_millis(20);
/// What of an object is shown when it is not as it should be.
const SHOWN_BYTES: usize = 2_000;

/// Looks until `probe` returns a value; its error says what is seen instead.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    eventually_within(PATIENCE, what, probe).await
}

/// [`eventually`] with another deadline.
pub async fn eventually_within<T>(
    within: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = anyhow!("no answer");
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("not within {} s: {what}; last seen: {last:#}", within.as_secs_f32());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Follows one object by watch until it is as wanted; `None` is its absence.
pub async fn until_object<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    mut wanted: impl FnMut(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    match timeout_at(deadline, follow(api, name, &mut last, &mut wanted)).await {
        Ok(result) => result,
        Err(_) => {
            let mut seen = last
                .map_or_else(|| "no object".to_owned(), |object| serde_json::to_string(&object).unwrap_or_default());
            seen.truncate(seen.floor_char_boundary(SHOWN_BYTES));
            bail!("not within {} s: {what}; `{name}` last seen: {seen}", PATIENCE.as_secs());
        }
    }
}

async fn follow<K>(
    api: &Api<K>,
    name: &str,
    last: &mut Option<K>,
    wanted: &mut impl FnMut(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let selector = format!("metadata.name={name}");
    loop {
        // A server that restarts, or a kind that does not exist at the moment, is part of some tests.
        let Ok(list) = api.list(&ListParams::default().fields(&selector)).await else {
            tokio::time::sleep(POLL).await;
            continue;
        };
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        *last = list.items.into_iter().next();
        if wanted(last.as_ref()) {
            return Ok(last.take());
        }
        let Ok(stream) = api.watch(&WatchParams::default().fields(&selector), &version).await else { continue };
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => *last = Some(object),
                WatchEvent::Deleted(object) if object.name_any() == name => *last = None,
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => break,
            }
            if wanted(last.as_ref()) {
                return Ok(last.take());
            }
        }
    }
}
