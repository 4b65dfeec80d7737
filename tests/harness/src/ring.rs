//! The ring benchmark: N guests that pass a nonce on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::config::{Guest, Rule};
use crate::space::Space;
use crate::wait::{PATIENCE, until_object};

/// API group of the ring's resource.
pub const GROUP: &str = "ring.wasm-operator.dev";
/// Plural of the ring's resource.
pub const RESOURCE: &str = "testresources";
/// The object's name in each namespace.
const NAME: &str = "ring";
/// The annotation in which a guest passes on where a lap began.
const ORIGIN: &str = "ring.wasm-operator.dev/origin";

/// A ring of guests in namespaces of a test.
pub struct Ring<'a> {
    space: &'a Space,
    namespaces: Vec<String>,
}

impl<'a> Ring<'a> {
    /// Makes `size` namespaces.
    pub async fn new(space: &'a Space, size: usize) -> Result<Self> {
        Self::named(space, "ring", size).await
    }

    /// With another prefix of the namespaces than `ring`, for a second ring of the same test.
    pub async fn named(space: &'a Space, name: &str, size: usize) -> Result<Self> {
        let mut namespaces = Vec::with_capacity(size);
        for index in 0..size {
            namespaces.push(space.namespace(&format!("{name}-{index}")).await?);
        }
        Ok(Self { space, namespaces })
    }

    /// The namespaces, in the order of a lap.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// The guests, `ring-0` to `ring-<N-1>`: each reads its own namespace and writes the next one.
    pub fn guests(&self) -> Vec<Guest> {
        self.guests_of("ring")
    }

    /// The guests, with another component that keeps to the same rules.
    pub fn guests_of(&self, program: &str) -> Vec<Guest> {
        let next = self.namespaces.iter().cycle().skip(1);
        let pairs = self.namespaces.iter().zip(next).enumerate();
        pairs.map(|(index, (from, to))| guest_of(program, &format!("ring-{index}"), from, to)).collect()
    }

    /// The names of the guests.
    pub fn names(&self) -> Vec<String> {
        (0..self.namespaces.len()).map(|index| format!("ring-{index}")).collect()
    }

    /// Writes a nonce into the first namespace.
    pub async fn send(&self, nonce: i64) -> Result<()> {
        let first = self.namespaces.first().context("an empty ring")?;
        write(self.space, first, nonce).await
    }

    /// Waits until the nonce is in the last namespace.
    pub async fn arrived(&self, nonce: i64) -> Result<()> {
        let last = self.namespaces.last().context("an empty ring")?;
        until_nonce(self.space, last, nonce).await
    }

    /// One lap.
    pub async fn lap(&self, nonce: i64) -> Result<Duration> {
        let start = Instant::now();
        self.send(nonce).await?;
        self.arrived(nonce).await?;
        Ok(start.elapsed())
    }

    /// One lap, seen by one watch: the time from each namespace to the next.
    pub async fn hops(&self, nonce: i64) -> Result<Vec<Duration>> {
        let objects: Api<DynamicObject> = Api::all_with(self.space.client(), &resource());
        let version =
            objects.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
        let mut events = std::pin::pin!(objects.watch(&WatchParams::default(), &version).await?);
        self.send(nonce).await?;
        let mut last = None;
        let mut hops = Vec::with_capacity(self.namespaces.len());
        let deadline = Instant::now() + PATIENCE;
        while hops.len() + 1 < self.namespaces.len() {
            let event = timeout_at(deadline, events.next())
                .await
                .with_context(|| format!("the lap stopped after {} hops", hops.len()))?;
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event.context("the watch ended")?? else {
                continue;
            };
            let is_ours = object.namespace().is_some_and(|namespace| self.namespaces.contains(&namespace));
            if is_ours && nonce_of(Some(&object)) == Some(nonce) {
                let now = Instant::now();
                hops.extend(last.replace(now).map(|last| now - last));
            }
        }
        Ok(hops)
    }
}

/// A ring guest.
pub fn guest(name: &str, from: &str, to: &str) -> Guest {
    guest_of("ring", name, from, to)
}

/// A ring guest with this component.
pub fn guest_of(program: &str, name: &str, from: &str, to: &str) -> Guest {
    Guest::new(name, program)
        .env("IN_NAMESPACE", from)
        .env("OUT_NAMESPACE", to)
        .grant(Rule::read(GROUP, RESOURCE).namespace(from).namespace(to))
        .grant(Rule::new(GROUP, &[RESOURCE], &["create", "update"]).namespace(to))
}

/// The environment variable that makes a program of the ring hold so many bytes, and its value; None for 0, which is the default.
#[must_use]
pub fn ballast(bytes: u64) -> Option<(&'static str, String)> {
    (bytes > 0).then(|| ("HEAP_MEM_SIZE", bytes.to_string()))
}

/// The same guest, which holds so many bytes.
#[must_use]
pub fn with_ballast(guest: Guest, bytes: u64) -> Guest {
    ballast(bytes).into_iter().fold(guest, |guest, (name, value)| guest.env(name, value))
}

/// The objects of a namespace, with the administrator's rights.
pub fn objects(space: &Space, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(space.client(), namespace, &resource())
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "TestResource"))
}

/// Writes a nonce into a namespace.
pub async fn write(space: &Space, namespace: &str, nonce: i64) -> Result<()> {
    apply(space, namespace, json!({ "name": NAME }), nonce).await
}

/// Writes an object that stays where it is: its lap ends with the guest that watches this namespace and writes to `next`.
pub async fn write_still(space: &Space, namespace: &str, next: &str, name: &str) -> Result<()> {
    apply(space, namespace, json!({ "name": name, "annotations": { ORIGIN: format!("{next}/0") } }), 0).await
}

async fn apply(space: &Space, namespace: &str, metadata: Value, nonce: i64) -> Result<()> {
    let name = metadata.get("name").and_then(Value::as_str).context("an object without a name")?.to_owned();
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "TestResource",
        "metadata": metadata,
        "spec": { "nonce": nonce, "updatedAt": jiff::Timestamp::now().to_string() },
    });
    objects(space, namespace).patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Waits until a namespace has this nonce.
pub async fn until_nonce(space: &Space, namespace: &str, nonce: i64) -> Result<()> {
    let has = |object: Option<&DynamicObject>| nonce_of(object) == Some(nonce);
    until_object(&objects(space, namespace), NAME, &format!("nonce {nonce} is in `{namespace}`"), has).await?;
    Ok(())
}

/// The nonce of an object.
pub fn nonce_of(object: Option<&DynamicObject>) -> Option<i64> {
    object.filter(|object| object.name_any() == NAME)?.data.pointer("/spec/nonce")?.as_i64()
}
