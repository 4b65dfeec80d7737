//! The guests of `tests/misbehaving`: how they are configured, driven, and understood.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::{Guest, Rule};
use crate::logs::{Log, LogLine};
use crate::space::Space;
use crate::wait::until_object;

/// Far more than the programs write; their lines are what tests look at, so none may be dropped or cut.
const LOG_LINES_PER_SECOND: u64 = 20_000;
const LOG_LINE_BYTES: u64 = 4 << 20;

/// A guest that runs a program, for the ConfigMaps with its label in these namespaces, where it may do everything with ConfigMaps.
pub fn guest(name: &str, program: &str, namespaces: &[&str]) -> Guest {
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let rule =
        namespaces.iter().fold(Rule::new("", &["configmaps"], &all), |rule, namespace| rule.namespace(namespace));
    talkative(Guest::new(name, program).env("NAMESPACES", namespaces.join(","))).grant(rule)
}

/// With limits under which a program's output arrives whole.
pub fn talkative(guest: Guest) -> Guest {
    guest.limit("logLinesPerSecond", LOG_LINES_PER_SECOND).limit("logLineBytes", LOG_LINE_BYTES)
}

/// The ConfigMaps of one program in one namespace, with the administrator's rights.
#[derive(Clone)]
pub struct Objects {
    api: Api<ConfigMap>,
    program: String,
}

impl Objects {
    /// Of this program, in this namespace.
    pub fn new(space: &Space, namespace: &str, program: &str) -> Self {
        Self { api: space.config_maps(namespace), program: program.to_owned() }
    }

    /// The API that is used.
    pub fn api(&self) -> &Api<ConfigMap> {
        &self.api
    }

    /// Creates the object or replaces its data.
    pub async fn write(&self, name: &str, data: &[(&str, &str)]) -> Result<ConfigMap> {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "labels": { (misbehaving::LABEL): self.program } },
            "data": data,
        });
        Ok(self.api.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?)
    }

    /// [`write`](Self::write) of `data.value`.
    pub async fn write_value(&self, name: &str, value: &str) -> Result<ConfigMap> {
        self.write(name, &[("value", value)]).await
    }

    /// Deletes the object and waits until it is gone.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default()).await?;
        until_object(&self.api, name, "the object is gone", |object| object.is_none()).await?;
        Ok(())
    }

    /// The time from a write of `data.value` until `probe` has copied it.
    pub async fn round_trip(&self, name: &str, value: &str) -> Result<Duration> {
        let start = Instant::now();
        self.write_value(name, value).await?;
        self.until_copied(name, value).await?;
        Ok(start.elapsed())
    }

    /// Waits until `probe` has copied this value.
    pub async fn until_copied(&self, name: &str, value: &str) -> Result<()> {
        let copied = |object: Option<&ConfigMap>| {
            object.and_then(|object| object.data.as_ref()?.get("value")).is_some_and(|seen| seen == value)
        };
        until_object(&self.api, &format!("{name}-seen"), &format!("`probe` has copied `{value}` of `{name}`"), copied)
            .await?;
        Ok(())
    }
}

/// What `recorder` writes of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconcile {
    /// `namespace/name`.
    pub key: String,
    /// `initial`, `change`, `timer`, `retry` or `resync`.
    pub cause: String,
    /// Failures in a row.
    pub attempt: u32,
    /// Identifies it in the host's log.
    pub id: String,
    /// None: the object does not exist.
    pub uid: Option<String>,
    /// None: the object does not exist.
    pub resource_version: Option<String>,
    /// `data.value`.
    pub value: Option<String>,
    /// UIDs of those that were deleted before.
    pub deleted: Vec<String>,
    /// Microseconds since 1970.
    pub at: u64,
}

/// What `timer` writes of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tick {
    /// `namespace/name`.
    pub key: String,
    /// As in [`Reconcile`].
    pub cause: String,
    /// Microseconds since 1970.
    pub at: u64,
}

/// What `recorder` writes when it has taken its time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Finished {
    /// `namespace/name`.
    pub key: String,
    /// Of the reconcile.
    pub id: String,
    /// Microseconds since 1970.
    pub at: u64,
}

/// An answer that `requester` got.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// 0: there was no answer.
    #[serde(default)]
    pub status: u16,
    /// Names and values.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// At most 16 KiB of it.
    #[serde(default)]
    pub body: String,
    /// Why there was no answer.
    #[serde(default)]
    pub error: String,
}

impl Answer {
    /// The body as JSON, null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// `message` of a `Status`.
    pub fn message(&self) -> String {
        self.json().get("message").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// The lines of a guest's output that are JSON objects with this key.
fn outputs<T: serde::de::DeserializeOwned>(log: &Log, guest: &str, key: &str) -> Vec<T> {
    log.lines(|line| line.is_of(guest)).iter().filter_map(|line| output(line, key)).collect()
}

fn output<T: serde::de::DeserializeOwned>(line: &LogLine, key: &str) -> Option<T> {
    let mut value: Value = serde_json::from_str(line.message()).ok()?;
    serde_json::from_value(value.get_mut(key)?.take()).ok()
}

async fn until_output<T: serde::de::DeserializeOwned>(
    log: &Log,
    guest: &str,
    key: &str,
    what: &str,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    let is_wanted = |line: &LogLine| line.is_of(guest) && output(line, key).is_some_and(|value| wanted(&value));
    output(&log.wait(what, is_wanted).await?, key).context("a line that changed")
}

/// The reconciles that a `recorder` wrote.
pub fn reconciles(log: &Log, guest: &str) -> Vec<Reconcile> {
    outputs(log, guest, "reconcile")
}

/// Waits for a reconcile.
pub async fn until_reconcile(
    log: &Log,
    guest: &str,
    what: &str,
    wanted: impl Fn(&Reconcile) -> bool,
) -> Result<Reconcile> {
    until_output(log, guest, "reconcile", what, wanted).await
}

/// The reconciles that ended after `data.sleep`.
pub fn finished(log: &Log, guest: &str) -> Vec<Finished> {
    outputs(log, guest, "finished")
}

/// Waits for such an end.
pub async fn until_finished(
    log: &Log,
    guest: &str,
    what: &str,
    wanted: impl Fn(&Finished) -> bool,
) -> Result<Finished> {
    until_output(log, guest, "finished", what, wanted).await
}

/// Waits for so many calls of a `timer`.
pub async fn until_ticks(log: &Log, guest: &str, count: usize) -> Result<Vec<Tick>> {
    log.wait_for(count, "the timer ticks", |line| line.is_of(guest) && output::<Tick>(line, "timer").is_some()).await?;
    Ok(outputs(log, guest, "timer"))
}

/// Has a `requester` that says `ANSWERS=log` send requests, and returns the answers.
pub async fn answers(log: &Log, guest: &str, objects: &Objects, name: &str, requests: &[Value]) -> Result<Vec<Answer>> {
    #[derive(Deserialize)]
    struct Answers {
        id: String,
        answers: Vec<Answer>,
    }
    let id = format!("{:x}", jiff::Timestamp::now().as_nanosecond());
    objects.write(name, &[("id", &id), ("requests", &Value::from(requests).to_string())]).await?;
    let seen =
        until_output(log, guest, "answers", "the requester has its answers", |answers: &Answers| answers.id == id)
            .await?;
    anyhow::ensure!(
        seen.answers.len() == requests.len(),
        "{} answers to {} requests",
        seen.answers.len(),
        requests.len()
    );
    Ok(seen.answers)
}
