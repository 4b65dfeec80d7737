use super::*;

fn source() -> Source {
    Source {
        resource: Resource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
        },
        namespace: Some("n".into()),
        label_selector: "a in (b,c)".into(),
        field_selector: String::new(),
        representation: Representation::Metadata,
        private_to: None,
    }
}

fn read(line: &str) -> Option<Event> {
    event(line.as_bytes(), &source().resource).unwrap()
}

#[test]
fn a_watch_asks_for_bookmarks_from_its_version_on() {
    let request = source().watch(&ResourceVersion::new("7"), 0.5).unwrap();
    assert_eq!(
        request.uri(),
        "/apis/apps/v1/namespaces/n/deployments?labelSelector=a+in+%28b%2Cc%29&watch=1&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=450"
    );
    assert!(request.headers()["accept"].to_str().unwrap().starts_with("application/json;as=PartialObjectMetadata;"));
}

#[test]
fn a_streaming_list_names_no_version_so_it_cannot_go_back_in_time() {
    let request = source().streaming_list(0.0).unwrap();
    let query = request.uri().query().unwrap();
    assert!(query.contains("sendInitialEvents=true") && query.contains("resourceVersionMatch=NotOlderThan"));
    assert!(!query.contains("resourceVersion="));
}

#[test]
fn pages_are_limited_and_continued() {
    let source = Source { namespace: None, label_selector: String::new(), ..source() };
    assert_eq!(source.list(None).unwrap().uri(), "/apis/apps/v1/deployments?limit=500");
    assert_eq!(source.list(Some("t=1")).unwrap().uri(), "/apis/apps/v1/deployments?limit=500&continue=t%3D1");
}

#[test]
fn pages_give_items_version_and_token() {
    let body = r#"{"metadata":{"resourceVersion":"9","continue":"t"},"items":[{"metadata":{"name":"a","uid":"1"}}]}"#;
    let first = page(body, &source().resource).unwrap();
    assert_eq!((first.objects.len(), first.version.as_str(), first.token.as_deref()), (1, "9", Some("t")));
    let last = page(r#"{"metadata":{"resourceVersion":"9","continue":""},"items":null}"#, &source().resource).unwrap();
    assert_eq!((last.objects.len(), last.token), (0, None));
}

#[test]
fn events_are_told_apart() {
    let object = |kind: &str| {
        format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"a","uid":"1","resourceVersion":"5"}}}}}}"#)
    };
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        let event = read(&object(kind)).unwrap();
        assert_eq!(event.name(), kind);
        assert_eq!(event.position().unwrap().as_str(), "5");
    }
    assert!(read(&object("NEWER")).is_none());
}

#[test]
fn the_bookmark_that_ends_the_initial_events_is_told_from_others() {
    let end = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
    assert!(matches!(read(end), Some(Event::Bookmark { initial_end: true, .. })));
    let other = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","metadata":{"resourceVersion":"5","creationTimestamp":null}}}"#;
    assert!(matches!(read(other), Some(Event::Bookmark { initial_end: false, version }) if version.as_str() == "5"));
}

#[test]
fn an_error_in_the_stream_has_its_status_code() {
    let error = r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}}"#;
    assert!(matches!(read(error), Some(Event::Error { code: 410, .. })));
}

#[test]
fn what_is_no_event_is_an_error() {
    for line in
        ["", "{}", "[]", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":{}}"#, r#"{"type":"BOOKMARK","object":{}}"#]
    {
        assert!(event(line.as_bytes(), &source().resource).is_err(), "{line}");
    }
}
