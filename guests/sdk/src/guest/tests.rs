use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use super::*;
use crate::{Action, Config, Controller};

fn controller(name: &str) -> Reconciler {
    Controller::<ConfigMap>::new(Config::default()).named(name).run(
        |_, _| async {
            let request = request().unwrap();
            assert_eq!((request.attempt, request.cause), (3, Cause::Retry));
            Ok::<_, String>(Action::requeue(Duration::from_millis(request.controller.len() as u64)))
        },
        |_, _, _| Action::retry(),
        Arc::new(()),
    )
}

fn to(controller: &str) -> types::Request {
    types::Request {
        controller: controller.to_owned(),
        object: types::ObjectReference { namespace: None, name: "hello".to_owned() },
        content: Some(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hello"}}).to_string().into_bytes(),
        ),
        deleted: Vec::new(),
        attempt: 3,
        cause: Cause::Retry,
        id: "1".to_owned(),
        traceparent: None,
    }
}

#[test]
fn a_request_goes_to_the_controller_that_it_names() {
    let setup = || [controller("one"), controller("three")];

    assert_eq!(reconcile(setup, to("three")), Ok(Outcome::RequeueAfter(5)));
    assert_eq!(reconcile(setup, to("one")), Ok(Outcome::RequeueAfter(3)));
    assert!(matches!(reconcile(setup, to("two")), Err(Failure::Terminal(message)) if message.contains("`two`")));
    assert!(request().is_none());
}

#[test]
fn a_description_lists_each_permission_once() {
    let description = describe(|| vec![controller("one"), controller("two")]).unwrap();

    assert_eq!(description.controllers.len(), 2);
    assert_eq!(description.permissions.len(), 1);
}

#[test]
fn controllers_of_one_name_are_refused() {
    let error = describe(|| vec![controller("one"), controller("two"), controller("one")]).unwrap_err();

    assert!(error.contains("`one`"), "{error}");
}

#[test]
fn a_guest_that_cannot_start_says_why() {
    assert_eq!(describe(|| Err::<Guest, _>("no `NAMESPACE`")), Err("no `NAMESPACE`".to_owned()));
    assert!(describe(Vec::new).unwrap_err().contains("no controllers"));
}

#[test]
fn kinds_with_equal_names_in_one_guest_do_not_clash() {
    let secrets = Controller::<Secret>::new(Config::default()).run(
        |_, _| async { Ok::<_, String>(Action::await_change()) },
        |_, _, _| Action::retry(),
        Arc::new(()),
    );
    assert_eq!(secrets.description.name, "secret");
}
