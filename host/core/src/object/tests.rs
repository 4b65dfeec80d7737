use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

fn resource() -> Resource {
    Resource { group: "apps".into(), version: "v1".into(), kind: "Deployment".into(), plural: "deployments".into() }
}

fn parse(json: &str) -> Object {
    Object::parse(json.as_bytes(), &resource()).unwrap()
}

#[test]
fn unknown_fields_survive_and_managed_fields_do_not() {
    let object = parse(
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","uid":"u","managedFields":[{"manager":"x"}],"odd":[1,{"é":null}]},"spec":{"new":1.50}}"#,
    );
    assert_eq!(
        std::str::from_utf8(&object.json).unwrap(),
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","uid":"u","odd":[1,{"é":null}]},"spec":{"new":1.50}}"#
    );
}

#[test]
fn an_item_of_a_list_gets_its_api_version_and_kind() {
    let object = parse(r#"{"metadata":{"name":"a","uid":"u"}}"#);
    assert_eq!(
        std::str::from_utf8(&object.json).unwrap(),
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","uid":"u"}}"#
    );
}

#[test]
fn null_maps_are_empty() {
    let object = parse(r#"{"metadata":{"name":"a","uid":"u","labels":null,"ownerReferences":null}}"#);
    assert!(object.metadata.labels.is_empty());
}

#[test]
fn labels_are_found_whatever_their_order_and_the_last_of_two_counts() {
    let object = parse(r#"{"metadata":{"name":"a","uid":"u","labels":{"z":"1","a":"2","m":"3","a":"4"}}}"#);
    let labels: Vec<_> = object.metadata.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(labels, [("a", "4"), ("m", "3"), ("z", "1")]);
    assert_eq!(object.metadata.labels.get("m").map(|value| &**value), Some("3"));
    assert_eq!(object.metadata.labels.get("b"), None);
}

#[test]
fn what_is_not_an_object_is_refused() {
    for json in ["", "[]", "{}", r#"{"metadata":{}}"#, r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":1}}"#] {
        assert!(Object::parse(json.as_bytes(), &resource()).is_err(), "{json}");
    }
}

#[test]
fn fields_are_found_by_path() {
    let object = parse(r#"{"metadata":{"name":"a","uid":"u"},"spec":{"s":"x\"y","n":3,"b":true,"o":{},"z":null}}"#);
    assert_eq!(object.field(".spec.s").as_deref(), Some("x\"y"));
    assert_eq!(object.field(".spec.n").as_deref(), Some("3"));
    assert_eq!(object.field(".spec.b").as_deref(), Some("true"));
    assert_eq!(object.field(".metadata.name").as_deref(), Some("a"));
    for path in [".spec.o", ".spec.z", ".spec.none", "spec.s", ".spec.s.t", ""] {
        assert_eq!(object.field(path), None, "{path}");
    }
}

#[test]
fn versions_that_are_not_numbers_have_no_order() {
    let version = ResourceVersion::new;
    assert_eq!(version("9").compare(&version("10")), Some(Ordering::Less));
    assert_eq!(version("a").compare(&version("a")), Some(Ordering::Equal));
    for odd in ["", "a", "01", "-1", "1.0"] {
        assert_eq!(version(odd).compare(&version("5")), None, "{odd}");
    }
}

proptest! {
    #[test]
    fn versions_compare_as_numbers(a in 1u128.., b in 1u128..) {
        let version = |n: u128| ResourceVersion::new(&n.to_string());
        prop_assert_eq!(version(a).compare(&version(b)), Some(a.cmp(&b)));
    }

    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Object::parse(&bytes, &resource());
    }
}
