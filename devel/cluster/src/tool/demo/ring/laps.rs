//! Laps of a nonce round the ring.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::super::manifest::{self, FIELD_MANAGER};

pub(super) const CRD: &str = "guests/ring/crd.yaml";
/// The object that travels has this name in each namespace.
const OBJECT: &str = "ring";

/// A lap takes milliseconds; this is for a machine that is busy with something else.
const LAP_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Laps {
    client: Client,
    resource: ApiResource,
    guests: u16,
}

#[derive(Debug)]
pub(super) struct Lap {
    pub(super) nonce: i64,
    /// From the first write until the nonce was seen in the last namespace.
    pub(super) total: Duration,
    /// From each namespace to the next, as the watch of the demo saw it.
    pub(super) hops: Vec<Duration>,
}

pub(super) fn namespace(index: u16) -> String {
    format!("ring-{index}")
}

impl Laps {
    pub(super) fn new(client: Client, guests: u16) -> Self {
        let kind = GroupVersionKind::gvk("ring.wasm-operator.dev", "v1", "TestResource");
        Self { client, resource: ApiResource::from_gvk_with_plural(&kind, "testresources"), guests }
    }

    pub(super) fn len(&self) -> usize {
        self.guests.into()
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = String> {
        (0..self.guests).map(namespace)
    }

    fn all(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &self.resource)
    }

    /// Where a lap begins.
    fn first(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &namespace(0), &self.resource)
    }

    /// Returns when the kind is served.
    pub(super) async fn wait_for_crd(&self) -> Result<()> {
        manifest::until_served(&self.all(), CRD).await
    }

    /// Sends a nonce and waits until it is in the last namespace.
    pub(super) async fn lap(&self) -> Result<Lap> {
        let before = self.all().list(&ListParams::default()).await.context("cannot list the ring's objects")?;
        let version = before.metadata.resource_version.clone().unwrap_or_default();
        // A guest writes nothing over a larger nonce.
        let nonce = before.items.iter().filter_map(nonce_of).max().unwrap_or_default() + 1;
        let events = self.all().watch(&WatchParams::default(), &version).await.context("cannot watch the ring")?;
        let mut events = std::pin::pin!(events);

        // The watch keeps its connection. This request opens another, so that the lap does not begin with a handshake.
        let _ = self.first().get_opt(OBJECT).await.context("cannot read the ring's first object")?;
        let start = Instant::now();
        self.send(nonce).await?;
        let deadline = start + LAP_PATIENCE;
        let mut seen = vec![None; self.len()];
        while seen.last().is_some_and(Option::is_none) {
            let reached = seen.iter().rposition(Option::is_some).map(|index| format!("ring-{index}"));
            let stuck = || {
                format!(
                    "nonce {nonce} is not round after {} s; it was seen last in {reached:?}",
                    LAP_PATIENCE.as_secs()
                )
            };
            let event = timeout_at(deadline, events.next())
                .await
                .with_context(stuck)?
                .context("the watch of the ring ended")??;
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
                if let WatchEvent::Error(status) = event {
                    bail!("the watch of the ring failed: {}", status.message);
                }
                continue;
            };
            let index = object.namespace().and_then(|namespace| namespace.strip_prefix("ring-")?.parse::<usize>().ok());
            if let Some(moment) = index.and_then(|index| seen.get_mut(index))
                && object.name_any() == OBJECT
                && nonce_of(&object) == Some(nonce)
            {
                moment.get_or_insert_with(Instant::now);
            }
        }
        let moments: Vec<Instant> = seen.into_iter().flatten().collect();
        let total = moments.last().map(|last| *last - start).unwrap_or_default();
        let hops =
            moments.iter().zip(moments.iter().skip(1)).map(|(from, to)| to.saturating_duration_since(*from)).collect();
        Ok(Lap { nonce, total, hops })
    }

    async fn send(&self, nonce: i64) -> Result<()> {
        let object = json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": { "name": OBJECT },
            "spec": { "nonce": nonce, "updatedAt": Timestamp::now().to_string() },
        });
        self.first()
            .patch(OBJECT, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
            .await
            .context("cannot send the nonce")?;
        Ok(())
    }
}

fn nonce_of(object: &DynamicObject) -> Option<i64> {
    object.data.pointer("/spec/nonce")?.as_i64()
}
