//! Between the shapes of `wit/controller.wit` and those of the core.

use std::time::Duration;

use wasm_operator_core::description::{Controller, Description};
use wasm_operator_core::permission::Rule;
use wasm_operator_core::reconcile::{Cause, Failure, Outcome, Request};
use wasm_operator_core::watch::{FieldValue, GroupKind, Mapping, Parts, Representation, Resource, Watch};

use crate::bindings::wasm_operator::controller::types as wit;
use crate::error::CallError;

/// Text of a failure: it goes into logs and Events.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Controllers of one guest.
const MAX_CONTROLLERS: usize = 64;
/// Watches of one controller.
const MAX_WATCHES: usize = 64;
/// Permission rules of one guest.
const MAX_RULES: usize = 512;
/// The whole description as JSON.
const MAX_DESCRIPTION_BYTES: usize = 256 << 10;

pub(crate) fn tombstones(request: &Request) -> Vec<wit::Tombstone<'_>> {
    request.deleted.iter().map(|deleted| wit::Tombstone { uid: &deleted.uid, metadata: &deleted.metadata }).collect()
}

pub(crate) fn request<'a>(request: &'a Request, deleted: &'a [wit::Tombstone<'a>]) -> wit::Request<'a> {
    wit::Request {
        controller: &request.controller,
        object: wit::ObjectReference { namespace: request.object.namespace.as_deref(), name: &request.object.name },
        content: request.content.as_deref(),
        deleted,
        attempt: request.attempt,
        cause: match request.cause {
            Cause::Initial => wit::Cause::Initial,
            Cause::Change => wit::Cause::Change,
            Cause::Timer => wit::Cause::Timer,
            Cause::Retry => wit::Cause::Retry,
            Cause::Resync => wit::Cause::Resync,
        },
        id: &request.id,
        traceparent: request.traceparent.as_deref(),
    }
}

pub(crate) fn answer(answer: Result<wit::Outcome, wit::Failure>) -> Result<Outcome, Failure> {
    match answer {
        Ok(wit::Outcome::Done) => Ok(Outcome::Done),
        Ok(wit::Outcome::RequeueAfter(milliseconds)) => Ok(Outcome::RequeueAfter(Duration::from_millis(milliseconds))),
        Err(wit::Failure::Retryable(wit::Retry { message, after })) => {
            Err(Failure::Retryable { message: shorten(message), after: after.map(Duration::from_millis) })
        }
        Err(wit::Failure::Terminal(text)) => Err(Failure::Terminal(shorten(text))),
    }
}

/// Cuts a guest's text at a character.
pub(crate) fn shorten(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push('…');
    }
    text
}

/// Takes a description within bounds. What it means is for others to check.
pub(crate) fn description(description: wit::Description) -> Result<Description, CallError> {
    let bounded = |what: &str, count: usize, limit: usize| {
        if count > limit {
            return Err(CallError::Description(format!("it has {count} {what}, at most {limit} are allowed")));
        }
        Ok(())
    };
    bounded("controllers", description.controllers.len(), MAX_CONTROLLERS)?;
    bounded("permission rules", description.permissions.len(), MAX_RULES)?;
    for controller in &description.controllers {
        bounded("watches in one controller", controller.watches.len(), MAX_WATCHES)?;
    }
    let description = Description {
        controllers: description.controllers.into_iter().map(controller).collect(),
        permissions: description.permissions.into_iter().map(rule).collect(),
    };
    let size = serde_json::to_vec(&description).map_or(usize::MAX, |json| json.len());
    bounded("bytes", size, MAX_DESCRIPTION_BYTES)?;
    Ok(description)
}

fn controller(controller: wit::Controller) -> Controller {
    Controller {
        name: controller.name,
        primary: watch(controller.primary),
        watches: controller.watches.into_iter().map(watch).collect(),
    }
}

fn watch(watch: wit::Watch) -> Watch {
    Watch {
        of: Resource { group: watch.of.group, version: watch.of.version, kind: watch.of.kind, plural: watch.of.plural },
        namespaces: watch.namespaces,
        label_selector: watch.label_selector,
        field_selector: watch.field_selector,
        representation: match watch.representation {
            wit::Representation::Metadata => Representation::Metadata,
            wit::Representation::Full => Representation::Full,
        },
        mapping: match watch.mapping {
            wit::Mapping::Object => Mapping::Object,
            wit::Mapping::Owner(kind) => Mapping::Owner(GroupKind { group: kind.group, kind: kind.kind }),
            wit::Mapping::Label(key) => Mapping::Label(key),
            wit::Mapping::Annotation(key) => Mapping::Annotation(key),
            wit::Mapping::Field(path) => Mapping::Field(path),
            wit::Mapping::Nothing => Mapping::Nothing,
        },
        changed: Parts {
            generation: watch.changed.contains(wit::Parts::GENERATION),
            labels: watch.changed.contains(wit::Parts::LABELS),
            annotations: watch.changed.contains(wit::Parts::ANNOTATIONS),
            finalizers: watch.changed.contains(wit::Parts::FINALIZERS),
        },
        having: watch.having.into_iter().map(|field| FieldValue { path: field.path, value: field.value }).collect(),
    }
}

fn rule(rule: wit::PermissionRule) -> Rule {
    Rule {
        api_groups: rule.api_groups,
        resources: rule.resources,
        verbs: rule.verbs,
        resource_names: rule.resource_names,
        namespaces: rule.namespaces,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasm_operator_core::object::ObjectRef;
    use wasm_operator_core::reconcile::Tombstone;

    use super::*;

    fn watch(mapping: wit::Mapping, changed: wit::Parts) -> wit::Watch {
        wit::Watch {
            of: wit::Resource { group: "g".into(), version: "v".into(), kind: "k".into(), plural: "p".into() },
            namespaces: vec!["n".into()],
            label_selector: "label".into(),
            field_selector: "field".into(),
            representation: wit::Representation::Full,
            mapping,
            changed,
            having: vec![wit::FieldValue { path: ".a".into(), value: "1".into() }],
        }
    }

    #[test]
    fn every_field_of_a_description_finds_its_place() {
        let owner = wit::GroupKind { group: "og".into(), kind: "ok".into() };
        let watches = [
            watch(wit::Mapping::Owner(owner), wit::Parts::GENERATION),
            watch(wit::Mapping::Label("l".into()), wit::Parts::LABELS),
            watch(wit::Mapping::Annotation("a".into()), wit::Parts::ANNOTATIONS),
            watch(wit::Mapping::Field(".f".into()), wit::Parts::FINALIZERS),
            watch(wit::Mapping::Nothing, wit::Parts::empty()),
        ];
        let rule = wit::PermissionRule {
            api_groups: vec!["group".into()],
            resources: vec!["resource".into()],
            verbs: vec!["verb".into()],
            resource_names: vec!["name".into()],
            namespaces: vec!["namespace".into()],
        };
        let controller = wit::Controller {
            name: "c".into(),
            primary: watch(wit::Mapping::Object, wit::Parts::empty()),
            watches: watches.into(),
        };
        let description =
            description(wit::Description { controllers: vec![controller], permissions: vec![rule] }).unwrap();
        let json = serde_json::to_value(&description).unwrap();
        let expected = serde_json::json!({"group": "g", "version": "v", "kind": "k", "plural": "p"});
        let primary = &json["controllers"][0]["primary"];
        assert_eq!(primary["of"], expected);
        assert_eq!(primary["namespaces"], serde_json::json!(["n"]));
        assert_eq!((&primary["labelSelector"], &primary["fieldSelector"]), (&"label".into(), &"field".into()));
        assert_eq!(primary["having"], serde_json::json!([{"path": ".a", "value": "1"}]));
        let watches = &description.controllers[0].watches;
        let changed = |index: usize| {
            let Parts { generation, labels, annotations, finalizers } = watches[index].changed;
            [generation, labels, annotations, finalizers]
        };
        for index in 0..5 {
            let mut expected = [false; 4];
            if let Some(part) = expected.get_mut(index) {
                *part = true;
            }
            assert_eq!(changed(index), expected, "{index}");
        }
        let mappings: Vec<_> = watches.iter().map(|watch| watch.mapping.clone()).collect();
        let expected = [
            Mapping::Owner(GroupKind { group: "og".into(), kind: "ok".into() }),
            Mapping::Label("l".into()),
            Mapping::Annotation("a".into()),
            Mapping::Field(".f".into()),
            Mapping::Nothing,
        ];
        assert_eq!(mappings, expected);
        let rule = &description.permissions[0];
        let fields = [&rule.api_groups, &rule.resources, &rule.verbs, &rule.resource_names, &rule.namespaces];
        assert_eq!(fields.map(|field| field[0].as_str()), ["group", "resource", "verb", "name", "namespace"]);
    }

    #[test]
    fn every_field_of_a_request_finds_its_place() {
        let deleted = Tombstone { uid: "uid".into(), metadata: Arc::from(&b"{}"[..]) };
        let asked = Request {
            controller: "controller".into(),
            object: ObjectRef { namespace: None, name: "name".into() },
            content: Some(Arc::from(&b"content"[..])),
            deleted: vec![deleted],
            attempt: 7,
            cause: Cause::Resync,
            id: "id".into(),
            traceparent: Some("trace".into()),
        };
        let deleted = tombstones(&asked);
        let given = request(&asked, &deleted);
        assert_eq!((given.controller, given.object.namespace, given.object.name), ("controller", None, "name"));
        assert_eq!((given.content, given.attempt, given.id), (Some(&b"content"[..]), 7, "id"));
        assert_eq!((given.deleted[0].uid, given.deleted[0].metadata), ("uid", &b"{}"[..]));
        assert!(matches!(given.cause, wit::Cause::Resync) && given.traceparent == Some("trace"));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = shorten("ä".repeat(MAX_MESSAGE_BYTES));
        assert!(text.len() <= MAX_MESSAGE_BYTES + '…'.len_utf8() && text.ends_with("ä…"), "{}", text.len());
    }
}
