//! Kubernetes Events, in the words of `kube::runtime::events`.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event as KubernetesEvent, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;

use crate::names;

/// The most bytes of a note that the API server takes.
const MAX_NOTE: usize = 1024;

/// Whether an event tells of something normal or of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// A user should look.
    Warning,
}

/// What happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Normal or warning.
    pub type_: EventType,
    /// A short PascalCase reason, for machines.
    pub reason: String,
    /// What happened, for people; cut after 1,024 bytes.
    pub note: Option<String>,
    /// What was done or tried, PascalCase.
    pub action: String,
    /// Another object that is concerned.
    pub secondary: Option<ObjectReference>,
}

/// Publishes events. Repetitions of an event, whatever their note, are counted in the object of the first one.
///
/// Needs [`Rule::events`](crate::Rule::events). Publish changes of state that a user can act on, not every reconcile.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    controller: String,
}

impl Recorder {
    /// `controller` is what reports, such as `hello.example.org`.
    #[must_use]
    pub fn new(client: Client, controller: &str) -> Self {
        Self { client, controller: controller.to_owned() }
    }

    /// Publishes an event about an object (`object.object_ref(&())`).
    ///
    /// # Errors
    /// When the API server refuses it. An event is never worth failing a reconcile for: log the error and go on.
    pub async fn publish(&self, event: &Event, object: &ObjectReference) -> Result<(), Error> {
        // Events of cluster-scoped objects live in `default`.
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<KubernetesEvent> = Api::namespaced(self.client.clone(), namespace);
        let new = self.event(event, object, namespace, Timestamp::now());
        let name = new.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &new).await {
            Err(Error::Api(status)) if status.code == 409 => {
                let known = api.get(&name).await?;
                let patch = Patch::Merge(repetition(&known, Timestamp::now()));
                api.patch(&name, &PatchParams::default(), &patch).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// A guest remembers nothing, so the name must tell which events are the same.
    fn event(&self, event: &Event, object: &ObjectReference, namespace: &str, now: Timestamp) -> KubernetesEvent {
        let type_ = match event.type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let identity = [
            &self.controller,
            object.uid.as_deref().unwrap_or_default(),
            type_,
            &event.reason,
            &event.action,
            event.secondary.as_ref().and_then(|secondary| secondary.uid.as_deref()).unwrap_or_default(),
        ]
        .join("\n");
        let subject: String = object.name.as_deref().unwrap_or("object").chars().take(200).collect();
        KubernetesEvent {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", subject.trim_end_matches(['.', '-']), names::digest(&identity, 16))),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(type_.to_owned()),
            reason: Some(event.reason.clone()),
            note: event.note.as_deref().map(cut),
            action: Some(event.action.clone()),
            event_time: Some(MicroTime(now)),
            regarding: Some(object.clone()),
            related: event.secondary.clone(),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.controller.clone()),
            ..KubernetesEvent::default()
        }
    }
}

/// One more of `known`. The API server lets nothing but the series of an event change.
fn repetition(known: &KubernetesEvent, now: Timestamp) -> serde_json::Value {
    let count = known.series.as_ref().map_or(1, |series| series.count).saturating_add(1);
    json!({"series": EventSeries { count, last_observed_time: MicroTime(now) }})
}

fn cut(note: &str) -> String {
    note.get(..note.floor_char_boundary(MAX_NOTE)).unwrap_or(note).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(reason: &str, uid: &str) -> String {
        crate::runtime::enter(|| {
            let recorder = Recorder::new(crate::client(), "hello.example.org");
            let event = Event {
                type_: EventType::Warning,
                reason: reason.to_owned(),
                note: Some("ö".repeat(1000)),
                action: "Scale".to_owned(),
                secondary: None,
            };
            let object =
                ObjectReference { name: Some("web".into()), uid: Some(uid.into()), ..ObjectReference::default() };
            let event = recorder.event(&event, &object, "default", Timestamp::now());
            assert!(event.note.unwrap().len() <= MAX_NOTE);
            event.metadata.name.unwrap()
        })
    }

    #[test]
    fn a_repetition_counts_and_changes_nothing_else() {
        let first = KubernetesEvent { note: Some("one".to_owned()), ..KubernetesEvent::default() };
        let patch = repetition(&first, Timestamp::UNIX_EPOCH);
        assert_eq!(patch, json!({"series": {"count": 2, "lastObservedTime": "1970-01-01T00:00:00.000000Z"}}));

        let series = EventSeries { count: 41, last_observed_time: MicroTime(Timestamp::UNIX_EPOCH) };
        let known = KubernetesEvent { series: Some(series), ..first };
        assert_eq!(repetition(&known, Timestamp::UNIX_EPOCH)["series"]["count"], 42);
    }

    #[test]
    fn the_same_event_of_the_same_object_has_the_same_name() {
        assert_eq!(name("Failed", "1"), name("Failed", "1"));
        assert_ne!(name("Failed", "1"), name("Failed", "2"));
        assert_ne!(name("Failed", "1"), name("Denied", "1"));
        assert!(name("Failed", "1").starts_with("web."));
    }
}
