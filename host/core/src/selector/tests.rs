use proptest::prelude::*;

use super::*;
use crate::object::Labels;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn matches(selector: &str, pairs: &[(&str, &str)]) -> bool {
    LabelSelector::parse(selector).unwrap().matches(&labels(pairs))
}

#[test]
fn label_selectors_match_as_in_kubernetes() {
    let app = [("app", "web"), ("n", "10")];
    for selector in [
        "",
        "app",
        "app=web",
        "app == web",
        "app!=db",
        "other!=x",
        "app in (db, web)",
        "app notin (db)",
        "other notin (x)",
        "!other",
        "n>9",
        "n<11",
        "app=web,n",
        " app in (web) , !other",
        "example.com/x notin (a)",
    ] {
        assert!(matches(selector, &app), "{selector}");
    }
    for selector in [
        "other",
        "app=db",
        "app!=web",
        "app in (db)",
        "app notin (web)",
        "!app",
        "n>10",
        "n<10",
        "other>1",
        "app>1",
        "app=web,other",
        "app=",
    ] {
        assert!(!matches(selector, &app), "{selector}");
    }
}

#[test]
fn an_empty_value_is_a_value() {
    assert!(matches("a=", &[("a", "")]));
    assert!(!matches("a=", &[]));
}

#[test]
fn what_the_server_refuses_is_refused() {
    for selector in [
        ",",
        "a,",
        "a b",
        "a in b",
        "a in (b",
        "=b",
        "a>x",
        "a=b=c",
        "a=-b",
        "-a",
        "a/",
        "/a",
        "!",
        "a!",
        "(",
        "a=b c",
        "a in ()",
        "a>-1",
        "a<+1",
        "A/b",
        "a=\u{a0}b",
    ] {
        assert!(LabelSelector::parse(selector).is_err(), "{selector}");
    }
}

#[test]
fn field_selectors_match_names_and_namespaces() {
    let metadata = Metadata { name: "x".into(), namespace: Some("ns".into()), ..Metadata::default() };
    for (selector, expected) in [
        ("", true),
        ("metadata.name=x", true),
        ("metadata.name==x,metadata.namespace=ns", true),
        ("metadata.name!=y", true),
        ("metadata.name=y", false),
        ("metadata.namespace!=ns", false),
    ] {
        let parsed = FieldSelector::parse(selector).unwrap();
        assert!(parsed.is_local());
        assert_eq!(parsed.matches(&metadata), expected, "{selector}");
    }
}

#[test]
fn the_name_of_a_selector_for_one_object_is_known() {
    let name = |selector| FieldSelector::parse(selector).unwrap().single_name().map(str::to_owned);
    assert_eq!(name("metadata.name=x").as_deref(), Some("x"));
    assert_eq!(name("metadata.namespace=n,metadata.name==x").as_deref(), Some("x"));
    assert_eq!(name("metadata.name!=x"), None);
    assert_eq!(name(""), None);
}

#[test]
fn other_fields_are_left_to_the_server() {
    let parsed = FieldSelector::parse("status.phase=Running").unwrap();
    assert!(!parsed.is_local());
}

#[test]
fn malformed_field_selectors_are_refused() {
    for selector in ["metadata.name", "a=b=c", "a=b!=c", "a!==b", "a=\\x", "a=\\"] {
        assert!(FieldSelector::parse(selector).is_err(), "{selector}");
    }
    assert!(FieldSelector::parse("a=x\\,y").is_ok());
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[a-z0-9!=<>(), /.\\\\]{0,30}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn in_and_notin_are_opposites(key in "[a-c]", values in proptest::collection::vec("[a-c]", 1..3), held in proptest::option::of("[a-c]")) {
        let list = values.join(",");
        let labels: Labels = held.iter().map(|value| (key.as_str().into(), value.as_str().into())).collect();
        let is_in = LabelSelector::parse(&format!("{key} in ({list})")).unwrap().matches(&labels);
        let not_in = LabelSelector::parse(&format!("{key} notin ({list})")).unwrap().matches(&labels);
        prop_assert_eq!(is_in, !not_in);
    }
}
