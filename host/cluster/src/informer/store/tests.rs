use wasm_operator_core::watch::Resource;

use super::*;

fn object(name: &str, uid: &str, version: u32) -> Arc<Object> {
    let json = format!(r#"{{"metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}"}}}}"#);
    let resource = Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() };
    Arc::new(Object::parse(json.as_bytes(), &resource).unwrap())
}

/// `+name`, `-name` or `~name` for each change.
fn words(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
    let word = |change: Change| match (change.old, change.new) {
        (None, Some(new)) => format!("+{}", new.metadata.name),
        (Some(old), None) => format!("-{}", old.metadata.name),
        (Some(_), Some(new)) => format!("~{}", new.metadata.name),
        (None, None) => String::new(),
    };
    changes.into_iter().map(word).collect()
}

fn version(number: u32) -> ResourceVersion {
    ResourceVersion::new(&number.to_string())
}

#[test]
fn a_relist_without_change_says_nothing() {
    let mut store = Store::default();
    assert_eq!(words(store.replace(vec![object("a", "1", 5)], version(5), true)), ["+a"]);
    assert!(store.replace(vec![object("a", "1", 5)], version(9), false).is_empty());
    assert_eq!(store.position(), Some(&version(9)));
}

#[test]
fn a_relist_synthesises_what_was_missed() {
    let mut store = Store::default();
    store.replace(vec![object("a", "1", 1), object("b", "2", 2), object("c", "3", 3)], version(3), true);
    let changes = store.replace(vec![object("b", "2", 7), object("c", "9", 8), object("d", "4", 6)], version(9), false);
    assert_eq!(words(changes), ["-a", "~b", "-c", "+c", "+d"]);
}

#[test]
fn the_same_name_with_another_uid_is_a_delete_and_a_create() {
    let mut store = Store::default();
    store.upsert(object("a", "1", 1));
    assert_eq!(words(store.upsert(object("a", "2", 2))), ["-a", "+a"]);
    assert_eq!(store.objects().map(|object| &*object.metadata.uid).collect::<Vec<_>>(), ["2"]);
}

#[test]
fn a_delete_of_something_unknown_moves_the_position_only() {
    let mut store = Store::default();
    assert!(store.delete(&object("a", "1", 4)).is_none());
    assert_eq!(store.position(), Some(&version(4)));
}

#[test]
fn a_list_older_than_the_last_event_begins_a_new_history() {
    let mut store = Store::default();
    store.replace(vec![object("a", "1", 50), object("b", "2", 60)], version(60), true);
    assert!(!store.is_older(&version(60)));
    assert!(store.is_older(&version(30)));
    assert_eq!(words(store.replace(vec![object("a", "1", 20)], version(30), false)), ["-b", "~a"]);
}

#[test]
fn a_version_that_is_given_a_second_time_does_not_hide_a_change() {
    let labelled = |label: &str| {
        let json =
            format!(r#"{{"metadata":{{"name":"a","uid":"1","resourceVersion":"20","labels":{{"l":"{label}"}}}}}}"#);
        let resource = Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() };
        Arc::new(Object::parse(json.as_bytes(), &resource).unwrap())
    };
    let mut store = Store::default();
    store.replace(vec![labelled("before")], version(50), true);
    assert_eq!(words(store.replace(vec![labelled("after")], version(30), false)), ["~a"]);
}

#[test]
fn bytes_follow_the_objects() {
    let mut store = Store::default();
    store.upsert(object("a", "1", 1));
    store.upsert(object("a", "1", 22));
    assert_eq!(store.bytes(), object("a", "1", 22).json.len());
    assert_eq!(words(store.clear()), ["-a"]);
    assert_eq!((store.bytes(), store.len()), (0, 0));
}
