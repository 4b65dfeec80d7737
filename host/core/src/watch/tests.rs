use super::*;

fn config_map() -> Resource {
    Resource { group: String::new(), version: "v1".into(), kind: "ConfigMap".into(), plural: "configmaps".into() }
}

fn watch(mapping: Mapping) -> Watch {
    Watch {
        of: config_map(),
        namespaces: vec![],
        label_selector: String::new(),
        field_selector: String::new(),
        representation: Representation::Full,
        mapping,
        changed: Parts::default(),
        having: vec![],
    }
}

fn object(json: &str) -> Option<Arc<Object>> {
    Some(Arc::new(Object::parse(json.as_bytes(), &config_map()).unwrap()))
}

fn change(old: &str, new: &str) -> Change {
    let read = |json: &str| if json.is_empty() { None } else { object(json) };
    Change { old: read(old), new: read(new), initial: false }
}

fn keys(watch: &Watch, change: &Change, namespaced: bool, cross_namespace: bool) -> Vec<String> {
    let index = FieldIndex::default();
    let primaries = Primaries { namespaced, cross_namespace, index: &index };
    watch.keys(change, primaries).into_iter().map(|mapped| mapped.object.to_string()).collect()
}

const OWNED: &str = r#"{"metadata":{"name":"c","namespace":"n","uid":"1","ownerReferences":[
    {"apiVersion":"apps/v1","kind":"Deployment","name":"not-controller","uid":"x"},
    {"apiVersion":"other/v1","kind":"Deployment","name":"other-group","uid":"y","controller":true},
    {"apiVersion":"apps/v1","kind":"Deployment","name":"d","uid":"z","controller":true}]}}"#;

#[test]
fn owners_match_by_group_kind_and_controller() {
    let watch = watch(Mapping::Owner(GroupKind { group: "apps".into(), kind: "Deployment".into() }));
    let index = FieldIndex::default();
    let primaries = Primaries { namespaced: true, cross_namespace: false, index: &index };
    let mapped: Vec<_> = watch.keys(&change("", OWNED), primaries).into_iter().collect();
    assert_eq!(mapped.len(), 1);
    assert_eq!(mapped[0].object.to_string(), "n/d");
    assert_eq!(mapped[0].uid.as_deref(), Some("z"));
    assert_eq!(keys(&watch, &change("", OWNED), false, false), ["d"]);
}

#[test]
fn an_object_that_changes_its_owner_leads_to_both() {
    let watch = watch(Mapping::Label("owner".into()));
    let named = |name: &str| {
        format!(r#"{{"metadata":{{"name":"c","namespace":"n","uid":"1","labels":{{"owner":"{name}"}}}}}}"#)
    };
    assert_eq!(keys(&watch, &change(&named("a"), &named("b")), true, false), ["n/a", "n/b"]);
}

#[test]
fn annotations_stay_in_their_namespace_unless_allowed() {
    let watch = watch(Mapping::Annotation("for".into()));
    let named = |value: &str| {
        change(
            "",
            &format!(r#"{{"metadata":{{"name":"c","namespace":"n","uid":"1","annotations":{{"for":"{value}"}}}}}}"#),
        )
    };
    assert_eq!(keys(&watch, &named("a"), true, false), ["n/a"]);
    assert_eq!(keys(&watch, &named("n/a"), true, false), ["n/a"]);
    assert!(keys(&watch, &named("m/a"), true, false).is_empty());
    assert_eq!(keys(&watch, &named("m/a"), true, true), ["m/a"]);
    assert_eq!(keys(&watch, &named("a"), false, false), ["a"]);
    for odd in ["", "n/", "n/a/b"] {
        assert!(keys(&watch, &named(odd), true, true).is_empty(), "{odd}");
    }
}

#[test]
fn a_cluster_scoped_object_leads_to_no_namespaced_primary_by_label() {
    let watch = watch(Mapping::Label("owner".into()));
    let change = change("", r#"{"metadata":{"name":"c","uid":"1","labels":{"owner":"a"}}}"#);
    assert!(keys(&watch, &change, true, false).is_empty());
    assert_eq!(keys(&watch, &change, false, false), ["a"]);
}

#[test]
fn fields_of_primaries_are_followed() {
    let watch = watch(Mapping::Field(".spec.configMapName".into()));
    let mut index = FieldIndex::new([".spec.configMapName".to_owned()]);
    let primary = |name: &str, value: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{name}"}},"spec":{{"configMapName":"{value}"}}}}"#
        )
    };
    index.update(&change("", &primary("p", "c")));
    index.update(&change("", &primary("q", "other")));
    let source = change("", r#"{"metadata":{"name":"c","namespace":"n","uid":"1"}}"#);
    let elsewhere = change("", r#"{"metadata":{"name":"c","namespace":"m","uid":"1"}}"#);
    let find = |index: &FieldIndex, change: &Change| -> Vec<String> {
        let primaries = Primaries { namespaced: true, cross_namespace: false, index };
        watch.keys(change, primaries).into_iter().map(|mapped| mapped.object.to_string()).collect()
    };
    assert_eq!(find(&index, &source), ["n/p"]);
    assert!(find(&index, &elsewhere).is_empty());
    index.update(&change(&primary("p", "c"), &primary("p", "d")));
    assert!(find(&index, &source).is_empty());
    index.update(&change(&primary("p", "d"), ""));
}

#[test]
fn the_generation_predicate_passes_on_finalizers_and_deletion_and_for_kinds_without_one() {
    let watch = Watch { changed: Parts { generation: true, ..Parts::default() }, ..watch(Mapping::Object) };
    let at = |rest: &str| format!(r#"{{"metadata":{{"name":"c","uid":"1"{rest}}}}}"#);
    let passes = |old: &str, new: &str| watch.passes(&change(&at(old), &at(new)));
    assert!(!passes(r#","generation":1"#, r#","generation":1,"labels":{"a":"b"}"#));
    assert!(passes(r#","generation":1"#, r#","generation":2"#));
    assert!(passes(r#","generation":1"#, r#","generation":1,"finalizers":["x"]"#));
    assert!(passes(r#","generation":1"#, r#","generation":1,"deletionTimestamp":"t""#));
    assert!(passes("", r#","labels":{"a":"b"}"#));
    assert!(watch.passes(&change(&at(r#","generation":1"#), "")));
}

#[test]
fn any_of_the_listed_parts_is_enough() {
    let watch =
        Watch { changed: Parts { labels: true, annotations: true, ..Parts::default() }, ..watch(Mapping::Object) };
    let at = |rest: &str| format!(r#"{{"metadata":{{"name":"c","uid":"1"{rest}}}}}"#);
    assert!(watch.passes(&change(&at(""), &at(r#","annotations":{"a":"b"}"#))));
    assert!(watch.passes(&change(&at(""), &at(r#","labels":{"a":"b"}"#))));
    assert!(!watch.passes(&change(&at(""), &at(r#","finalizers":["a"]"#))));
}

#[test]
fn a_recreated_object_passes_whatever_is_listed() {
    let watch = Watch { changed: Parts { labels: true, ..Parts::default() }, ..watch(Mapping::Object) };
    assert!(watch.passes(&change(r#"{"metadata":{"name":"c","uid":"1"}}"#, r#"{"metadata":{"name":"c","uid":"2"}}"#)));
}

#[test]
fn a_field_value_counts_before_and_after() {
    let having = vec![FieldValue { path: ".type".into(), value: "a".into() }];
    let watch = Watch { having, ..watch(Mapping::Object) };
    let at = |value: &str| format!(r#"{{"metadata":{{"name":"c","uid":"1"}},"type":"{value}"}}"#);
    assert!(watch.passes(&change(&at("a"), &at("b"))));
    assert!(watch.passes(&change(&at("b"), &at("a"))));
    assert!(!watch.passes(&change(&at("b"), &at("c"))));
}

#[test]
fn malformed_watches_are_refused() {
    let with = |edit: &dyn Fn(&mut Watch)| {
        let mut watch = watch(Mapping::Object);
        edit(&mut watch);
        watch.validate()
    };
    assert!(with(&|_| ()).is_ok());
    let edits: [&dyn Fn(&mut Watch); 12] = [
        &|w| w.of.group = "a/b".into(),
        &|w| w.of.version.clear(),
        &|w| w.of.plural = "ConfigMaps".into(),
        &|w| w.of.kind = "Config Map".into(),
        &|w| w.namespaces.push("..".into()),
        &|w| w.label_selector = "a in".into(),
        &|w| w.field_selector = "a".into(),
        &|w| w.mapping = Mapping::Field("spec".into()),
        &|w| w.mapping = Mapping::Label("a b".into()),
        &|w| w.mapping = Mapping::Annotation("/a".into()),
        &|w| w.mapping = Mapping::Owner(GroupKind { group: "Apps".into(), kind: "Deployment".into() }),
        &|w| {
            w.representation = Representation::Metadata;
            w.having.push(FieldValue { path: ".spec.a".into(), value: String::new() });
        },
    ];
    for (index, edit) in edits.iter().enumerate() {
        assert!(with(edit).is_err(), "{index}");
    }
}

#[test]
fn watches_of_a_controller_fit_together() {
    let primary = |representation| Watch { representation, ..watch(Mapping::Object) };
    let by_field = [watch(Mapping::Field(".spec.a".into()))];
    assert_eq!(validate_controller(&primary(Representation::Full), &by_field), Ok(()));
    assert_eq!(
        validate_controller(&primary(Representation::Metadata), &by_field),
        Err(InvalidWatch::FieldNeedsFull(".spec.a".into()))
    );
    assert!(matches!(validate_controller(&watch(Mapping::Nothing), &[]), Err(InvalidWatch::PrimaryMapping(_))));
}
