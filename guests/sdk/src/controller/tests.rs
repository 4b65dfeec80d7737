use std::cell::RefCell;

use crate::runtime::block_on;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use serde_json::json;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("no luck")]
struct NoLuck;

fn request(content: Option<serde_json::Value>, deleted: &[&str]) -> types::Request {
    types::Request {
        controller: "configmap".to_owned(),
        object: types::ObjectReference { namespace: Some("one".to_owned()), name: "hello".to_owned() },
        content: content.map(|content| content.to_string().into_bytes()),
        deleted: deleted
            .iter()
            .map(|uid| types::Tombstone {
                uid: (*uid).to_owned(),
                metadata: json!({"name": "hello", "uid": uid}).to_string().into_bytes(),
            })
            .collect(),
        attempt: 0,
        cause: types::Cause::Change,
        id: "1".to_owned(),
        traceparent: None,
    }
}

fn hello() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hello", "namespace": "one"}})
}

fn answer(action: Result<Action, NoLuck>, policy: Action) -> Result<Outcome, Failure> {
    let action = RefCell::new(Some(action));
    let reconciler = Controller::<ConfigMap>::new(Config::default()).run(
        move |_, _| std::future::ready(action.take().unwrap()),
        move |_, _, _| policy,
        Arc::new(()),
    );
    block_on((reconciler.call)(request(Some(hello()), &[])))
}

#[test]
fn actions_become_outcomes() {
    let never = Action::retry();
    assert_eq!(answer(Ok(Action::await_change()), never), Ok(Outcome::Done));
    assert_eq!(answer(Ok(Action::requeue(Duration::from_secs(2))), never), Ok(Outcome::RequeueAfter(2000)));
    // Rounded up: a timer that is due too early finds nothing to do.
    assert_eq!(answer(Ok(Action::requeue(Duration::from_micros(1))), never), Ok(Outcome::RequeueAfter(1)));
    assert_eq!(answer(Ok(Action::requeue(Duration::MAX)), never), Ok(Outcome::RequeueAfter(u64::MAX)));
    assert!(matches!(answer(Ok(Action::retry()), never), Err(Failure::Retryable(_))));
}

#[test]
fn the_error_policy_decides_what_becomes_of_an_error() {
    assert_eq!(answer(Err(NoLuck), Action::retry()), Err(retryable("no luck".to_owned(), None)));
    assert_eq!(answer(Err(NoLuck), Action::await_change()), Err(Failure::Terminal("no luck".to_owned())));
    let Err(Failure::Retryable(retry)) = answer(Err(NoLuck), Action::requeue(Duration::from_secs(1))) else {
        panic!("a failure with a delay of its own is a failure");
    };
    assert_eq!((retry.message.as_str(), retry.after), ("no luck", Some(1000)));
}

#[test]
fn an_object_that_does_not_fit_the_type_is_a_terminal_failure_that_says_why() {
    let reconciler = Controller::<ConfigMap>::new(Config::default()).run(
        |_, _| async { Err::<Action, _>(NoLuck) },
        |_, _, _| Action::retry(),
        Arc::new(()),
    );
    let content = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": 7});

    let Err(Failure::Terminal(message)) = block_on((reconciler.call)(request(Some(content), &[]))) else {
        panic!("not a terminal failure");
    };

    assert!(message.starts_with("ConfigMap `one/hello` does not fit the type"), "{message}");
    assert!(message.contains("invalid type: integer `7`"), "{message}");
}

#[test]
#[expect(clippy::arc_with_non_send_sync, reason = "a guest has one thread")]
fn deleted_objects_are_reported_oldest_first_and_before_the_new_one() {
    let seen = Arc::new(RefCell::new(Vec::new()));
    let reconciler = Controller::<ConfigMap>::new(Config::default()).run_with_deleted(
        |object: Arc<ConfigMap>, seen: Arc<RefCell<Vec<String>>>| {
            seen.borrow_mut().push(object.name_any());
            async { Ok::<_, NoLuck>(Action::await_change()) }
        },
        |deleted: Deleted, seen| {
            assert_eq!(deleted.metadata.uid.as_ref(), Some(&deleted.uid));
            seen.borrow_mut().push(deleted.uid);
            std::future::ready(Ok(()))
        },
        |_, _, _| Action::retry(),
        Arc::clone(&seen),
    );

    assert_eq!(block_on((reconciler.call)(request(Some(hello()), &["1", "2"]))), Ok(Outcome::Done));
    assert_eq!(block_on((reconciler.call)(request(None, &["3"]))), Ok(Outcome::Done));

    assert_eq!(*seen.borrow(), ["1", "2", "hello", "3"]);
}

#[test]
fn a_vanished_object_is_nothing_to_reconcile() {
    let reconciler = Controller::<ConfigMap>::new(Config::default()).run(
        |_, _| async { Err::<Action, _>(NoLuck) },
        |_, _, _| Action::retry(),
        Arc::new(()),
    );

    assert_eq!(block_on((reconciler.call)(request(None, &["1"]))), Ok(Outcome::Done));
}

#[test]
fn the_builder_says_what_is_watched() {
    let reconciler = Controller::<Deployment>::new(
        Config::default().labels("app in (a,b)").in_namespaces(["one", "two"]).when_generation_changed(),
    )
    .named("rollout")
    .owns::<ConfigMap>(Config::default().in_namespaces(["one"]))
    .reads::<ConfigMap>(Config::default().full())
    .watches::<PartialObjectMeta<ConfigMap>>(Config::default(), Mapping::by_label("app"))
    .asks_for(Rule::on::<Deployment>().subresource("status").patch())
    .run(|_, _| async { Err::<Action, _>(NoLuck) }, |_, _, _| Action::retry(), Arc::new(()));

    let types::Controller { name, primary, watches } = reconciler.description;
    assert_eq!(name, "rollout");
    assert_eq!((primary.of.group.as_str(), primary.of.plural.as_str()), ("apps", "deployments"));
    assert_eq!((primary.label_selector.as_str(), primary.namespaces.len()), ("app in (a,b)", 2));
    assert_eq!(primary.representation, types::Representation::Full);
    assert_eq!(primary.changed, types::Parts::GENERATION);
    assert_eq!(primary.mapping, Mapping::Object);
    let owner = types::GroupKind { group: "apps".to_owned(), kind: "Deployment".to_owned() };
    assert_eq!(watches[0].mapping, Mapping::Owner(owner));
    assert_eq!(watches[0].representation, types::Representation::Metadata);
    assert_eq!((&watches[1].mapping, watches[1].representation), (&Mapping::Nothing, types::Representation::Full));
    assert_eq!((watches[2].of.kind.as_str(), &watches[2].mapping), ("ConfigMap", &Mapping::by_label("app")));
    let rules: Vec<_> = reconciler
        .rules
        .iter()
        .map(|rule| (rule.resources[0].as_str(), rule.verbs.len(), rule.namespaces.len()))
        .collect();
    assert_eq!(
        rules,
        [("deployments", 3, 2), ("configmaps", 3, 1), ("configmaps", 3, 0), ("deployments/status", 1, 0)]
    );
}

#[test]
fn a_controller_of_metadata_watches_metadata() {
    let reconciler = Controller::<PartialObjectMeta<ConfigMap>>::new(Config::default()).run(
        |_, _| async { Err::<Action, _>(NoLuck) },
        |_, _, _| Action::retry(),
        Arc::new(()),
    );

    assert_eq!(reconciler.description.primary.representation, types::Representation::Metadata);
    assert_eq!(reconciler.description.name, "configmap");
}
