use proptest::prelude::*;

use super::*;

fn parse(method: &str, path: &str) -> ResourceRequest {
    match ApiRequest::parse(method, path) {
        Ok(ApiRequest::Resource(request)) => *request,
        other => panic!("{method} {path}: {other:?}"),
    }
}

fn refused(method: &str, path: &str) -> u16 {
    match ApiRequest::parse(method, path) {
        Err(refusal) => refusal.code,
        Ok(request) => panic!("{method} {path} was accepted: {request:?}"),
    }
}

#[test]
fn each_method_and_path_has_one_verb() {
    let one = "/api/v1/namespaces/a/configmaps/x";
    let all = "/api/v1/namespaces/a/configmaps";
    for (method, path, verb) in [
        ("GET", one, Verb::Get),
        ("GET", all, Verb::List),
        ("GET", "/api/v1/configmaps", Verb::List),
        ("POST", all, Verb::Create),
        ("PUT", one, Verb::Update),
        ("PATCH", one, Verb::Patch),
        ("DELETE", one, Verb::Delete),
        ("DELETE", all, Verb::DeleteCollection),
        ("POST", "/api/v1/namespaces/a/pods/x/eviction", Verb::Create),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status", Verb::Patch),
    ] {
        assert_eq!(parse(method, path).verb, verb, "{method} {path}");
    }
}

#[test]
fn parts_of_a_namespaced_subresource_are_told_apart() {
    let request = parse("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status");
    assert_eq!(request.group, "apps");
    assert_eq!(request.version, "v1");
    assert_eq!(request.namespace.as_deref(), Some("a"));
    assert_eq!(request.plural, "deployments");
    assert_eq!(request.name.as_deref(), Some("x"));
    assert_eq!(request.subresource.as_deref(), Some("status"));
    assert_eq!(request.resource(), "deployments/status");
}

// Rule 1: the server decodes, then splits, so an escaped separator would move the borders of the segments.
#[test]
fn percent_escapes_outside_the_name_are_refused() {
    for path in [
        "/api%2fv1/namespaces/a/configmaps",
        "/%61pi/v1/namespaces/a/configmaps",
        "/api/v1/namespaces/%61/configmaps",
        "/api/v1/namespaces/a/config%6daps",
        "/apis/%61pps/v1/namespaces/a/deployments",
        "/apis/apps/%76%31/namespaces/a/deployments",
        "/api/v1/namespaces/a/pods/x/%73tatus",
        "/api/v1/namespaces/a%2Fconfigmaps/x",
    ] {
        assert!(refused("GET", path) >= 400, "{path}");
    }
}

#[test]
fn escaped_separators_and_dots_in_a_name_are_refused() {
    for name in [
        "a%2Fb", "a%2fb", "%2F", "%5C", "a%25b", "%252F", "%3F", "%23", "%00", "%0a", "%7f", "%80", "%C3%A4", "%",
        "%4", "%zz", ".", "..", "%2e", "%2E%2e", ".%2e", "a\\b",
    ] {
        assert_eq!(refused("GET", &format!("/api/v1/namespaces/a/configmaps/{name}")), 400, "{name}");
        assert_eq!(refused("DELETE", &format!("/api/v1/namespaces/a/configmaps/{name}")), 400, "{name}");
    }
}

#[test]
fn an_escaped_colon_in_a_name_is_decoded_once_and_encoded_again() {
    for spelling in ["system%3Abasic-user", "system:basic-user", "%73ystem%3abasic-user"] {
        let request = parse("GET", &format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{spelling}"));
        assert_eq!(request.name.as_deref(), Some("system:basic-user"));
        assert_eq!(request.to_path_and_query(), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Abasic-user");
    }
}

#[test]
fn a_semicolon_belongs_to_the_name() {
    assert_eq!(parse("GET", "/api/v1/namespaces/a/configmaps/x;y").name.as_deref(), Some("x;y"));
}

// Rule 2: each of these deletes the whole collection upstream.
#[test]
fn a_delete_with_a_trailing_slash_never_becomes_a_deletecollection() {
    for path in [
        "/api/v1/namespaces/a/configmaps/",
        "/api/v1/namespaces/a/configmaps//",
        "/api/v1/namespaces/a/configmaps/%2F",
        "/api/v1/namespaces/a/configmaps/x/",
        "//api/v1/namespaces/a/configmaps",
        "/api//v1/namespaces/a/configmaps",
        "/api/v1/namespaces//configmaps/x",
    ] {
        assert_eq!(refused("DELETE", path), 400, "{path}");
    }
}

#[test]
fn dot_segments_are_refused_everywhere() {
    for path in [
        "/api/v1/namespaces/a/../b/configmaps",
        "/api/v1/namespaces/./configmaps",
        "/api/v1/namespaces/../secrets",
        "/api/../v1/secrets",
        "/apis/apps/../v1/x",
        "/./api/v1/secrets",
        "/api/v1/namespaces/%2e%2e/secrets",
    ] {
        assert!(refused("GET", path) >= 400, "{path}");
    }
}

#[test]
fn upper_case_and_non_dns_parts_are_refused() {
    for path in [
        "/API/v1/configmaps",
        "/api/V1/configmaps",
        "/api/v1/ConfigMaps",
        "/api/v1/Namespaces/a/configmaps",
        "/api/v1/namespaces/A/configmaps",
        "/api/v1/namespaces/a_b/configmaps",
        "/api/v1/namespaces/-a/configmaps",
        "/apis/Apps/v1/deployments",
        "/apis/apps./v1/deployments",
        "/apis/.apps/v1/deployments",
        "/api/v1/namespaces/a/pods/x/Status",
    ] {
        assert!(refused("GET", path) >= 400, "{path}");
    }
    let long = "a".repeat(64);
    assert_eq!(refused("GET", &format!("/api/v1/namespaces/{long}/configmaps")), 400);
    assert_eq!(refused("GET", &format!("/api/v1/configmaps/{}", "a".repeat(254))), 400);
}

#[test]
fn other_methods_are_not_allowed() {
    for method in ["HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "Get", "PROPFIND", ""] {
        assert_eq!(refused(method, "/api/v1/namespaces/a/configmaps/x"), 405, "{method}");
    }
    assert_eq!(refused("POST", "/api/v1/namespaces/a/configmaps/x"), 405);
    assert_eq!(refused("PUT", "/api/v1/namespaces/a/configmaps"), 405);
    assert_eq!(refused("PATCH", "/api/v1/namespaces/a/configmaps"), 405);
}

// Rule 3
#[test]
fn the_old_watch_and_proxy_prefixes_are_refused() {
    for path in [
        "/api/v1/watch/namespaces/a/secrets",
        "/apis/apps/v1/watch/deployments",
        "/api/v1/watch",
        "/api/v1/proxy/namespaces/a/pods/x",
        "/api/v1/namespaces/a/pods/x/proxy/y",
        "/api/v1/namespaces/a/services/x/proxy/a/b",
    ] {
        assert_eq!(refused("GET", path), 400, "{path}");
    }
}

#[test]
fn a_namespace_object_is_authorised_in_itself() {
    for path in ["/api/v1/namespaces/x", "/api/v1/namespaces/x/status", "/api/v1/namespaces/x/finalize"] {
        let request = parse("PUT", path);
        assert_eq!(request.plural, "namespaces");
        assert_eq!(request.namespace, None);
        assert_eq!(request.authorised_namespace(), Some("x"));
        assert_eq!(request.to_path_and_query(), path);
    }
    assert_eq!(parse("PUT", "/api/v1/namespaces/x/status").subresource.as_deref(), Some("status"));
    assert_eq!(parse("GET", "/api/v1/namespaces").authorised_namespace(), None);
}

// Rule 4
#[test]
fn only_discovery_paths_pass_outside_of_resources() {
    for path in [
        "/version",
        "/api",
        "/apis",
        "/apis/apps",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v3",
        "/version?timeout=32s",
        "/apis?",
    ] {
        let request = ApiRequest::parse("GET", path).unwrap();
        assert!(matches!(request, ApiRequest::Discovery(_)), "{path}");
        assert_eq!(request.to_path_and_query(), path.split('?').next().unwrap());
    }
    for path in [
        "/",
        "/healthz",
        "/livez",
        "/readyz",
        "/metrics",
        "/logs",
        "/logs/kubelet.log",
        "/debug/pprof",
        "/openapi/v2",
        "/openapi/v3/api",
        "/swagger.json",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/api/v2",
        "/api/v2/pods",
        "/version/",
        "/ui",
    ] {
        assert!(refused("GET", path) >= 400, "{path}");
    }
    assert_eq!(refused("POST", "/apis/apps/v1"), 405);
    assert_eq!(refused("GET", "/apis?labelSelector=x"), 400);
}

// Rule 5
#[test]
fn watch_is_every_value_but_zero_and_false() {
    for query in ["watch", "watch=", "watch=no", "watch=1", "watch=true", "%77atch=true", "&&watch"] {
        assert_eq!(parse("GET", &format!("/api/v1/configmaps?{query}")).verb, Verb::Watch, "{query}");
    }
    for query in ["", "watch=0", "watch=false", "&"] {
        assert_eq!(parse("GET", &format!("/api/v1/configmaps?{query}")).verb, Verb::List, "{query}");
    }
}

#[test]
fn duplicates_semicolons_bad_escapes_and_unknown_keys_are_refused() {
    for query in [
        "watch=0&watch=1",
        "watch=false&%77atch=true",
        "dryRun=All&dryRun=All",
        "labelSelector=a;watch=1",
        "labelSelector=%zz",
        "labelSelector=%",
        "labelSelector=%ff",
        "labelSelector=%0a",
        "unknown=1",
        "Watch=1",
        "limit=-1",
        "limit=1e3",
        "limit=",
        "limit=99999999999999999999",
        "resourceVersion=0%200",
        "fieldManager=x",
        "as=admin",
    ] {
        assert_eq!(refused("GET", &format!("/api/v1/configmaps?{query}")), 400, "{query}");
    }
}

#[test]
fn a_key_is_known_only_where_it_has_an_effect() {
    let one = "/api/v1/namespaces/a/configmaps/x";
    assert_eq!(refused("GET", &format!("{one}?watch=true")), 400);
    assert_eq!(refused("GET", &format!("{one}?fieldSelector=metadata.name%3Dy")), 400);
    assert_eq!(refused("PUT", &format!("{one}?force=true")), 400);
    assert_eq!(refused("DELETE", &format!("{one}?fieldManager=x")), 400);
    assert_eq!(refused("DELETE", "/api/v1/namespaces/a/configmaps?watch=true"), 400);
    assert_eq!(refused("PUT", &format!("{one}?dryRun=none")), 400);
    assert_eq!(refused("GET", "/api/v1/namespaces/a/pods/x/log?insecureSkipTLSVerifyBackend=true"), 400);
    assert!(parse("PATCH", &format!("{one}?force=true&dryRun=All")).query.dry_run);
    assert_eq!(parse("GET", "/api/v1/namespaces/a/pods/x/log?tailLines=5&container=c").query.log.len(), 2);
}

#[test]
fn empty_queries_of_kube_rs_are_accepted() {
    let request = parse("GET", "/api/v1/configmaps?&labelSelector=a%3Db&resourceVersion=0");
    assert_eq!(request.query.label_selector.as_deref(), Some("a=b"));
    assert_eq!(request.query.resource_version.as_deref(), Some("0"));
    assert_eq!(parse("PATCH", "/api/v1/namespaces/a/configmaps/x?").query, Query::default());
    assert_eq!(
        parse("GET", "/api/v1/configmaps?labelSelector=a+in+(b)").query.label_selector.as_deref(),
        Some("a in (b)")
    );
}

// Rule 6
#[test]
fn options_of_a_delete_are_read_from_where_the_server_reads_them() {
    let parse_delete = |query: &str, body: &str| {
        let request = parse("DELETE", &format!("/api/v1/namespaces/a/configmaps/x?{query}"));
        DeleteOptions::parse(&request.query, body.as_bytes())
    };
    assert!(parse_delete("dryRun=All", "").unwrap().dry_run);
    assert!(parse_delete("", r#"{"dryRun":["All"]}"#).unwrap().dry_run);
    assert!(!parse_delete("", "{}").unwrap().dry_run);
    assert!(parse_delete("", r#"{"preconditions":{"uid":"u"}}"#).unwrap().has_uid);
    assert_eq!(parse_delete("dryRun=All", "{}").unwrap_err().code, 400);
    assert_eq!(parse_delete("propagationPolicy=Orphan", "{}").unwrap_err().code, 400);
    assert_eq!(parse_delete("", "dryRun: [All]").unwrap_err().code, 400);
    assert_eq!(parse_delete("", "[]").unwrap_err().code, 400);
}

// Rule 7
#[test]
fn apply_and_put_on_some_kinds_need_create_as_well() {
    let verbs = |method: &str, path: &str, content| parse(method, path).needed_verbs(content).collect::<Vec<_>>();
    let map = "/api/v1/namespaces/a/configmaps/x";
    assert_eq!(verbs("PATCH", map, ContentType::Apply), [Verb::Patch, Verb::Create]);
    assert_eq!(verbs("PATCH", map, ContentType::MergePatch), [Verb::Patch]);
    assert_eq!(verbs("PUT", map, ContentType::Json), [Verb::Update]);
    assert_eq!(
        verbs("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", ContentType::Json),
        [Verb::Update, Verb::Create]
    );
    assert_eq!(verbs("PUT", "/api/v1/namespaces/a/endpoints/x", ContentType::Json), [Verb::Update, Verb::Create]);
    assert_eq!(verbs("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status", ContentType::Apply), [Verb::Patch]);
}

// Rule 8
#[test]
fn a_field_selector_for_a_name_is_authorised_as_that_name() {
    let name = |query: &str| {
        parse("GET", &format!("/api/v1/namespaces/a/secrets?{query}")).authorised_name().map(str::to_owned)
    };
    assert_eq!(name("fieldSelector=metadata.name%3Dx").as_deref(), Some("x"));
    assert_eq!(name("fieldSelector=metadata.name=x&watch=1").as_deref(), Some("x"));
    assert_eq!(name("fieldSelector=metadata.name==x").as_deref(), Some("x"));
    assert_eq!(name("fieldSelector=type=a,metadata.name=x").as_deref(), Some("x"));
    assert_eq!(name("fieldSelector=metadata.name!=x"), None);
    assert_eq!(name("fieldSelector=metadata.namespace=x"), None);
    assert_eq!(name("fieldSelector=a%5C,metadata.name=x"), None);
    assert_eq!(name("fieldSelector=metadata.name="), None);
    assert_eq!(name(""), None);
    let collection = parse("DELETE", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dx");
    assert_eq!(collection.authorised_name(), None);
}

// Rule 11
#[test]
fn only_json_is_accepted() {
    let shape = |header: &str| Accept::parse(Some(header)).unwrap().shape;
    for full in
        ["application/json", "*/*", "application/json, */*", "application/json;charset=utf-8", "application/*;q=0.8"]
    {
        assert_eq!(shape(full), Some(Shape::Full), "{full}");
    }
    assert_eq!(Accept::parse(None).unwrap().header, "application/json");
    assert_eq!(shape("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), Some(Shape::Metadata));
    assert_eq!(shape("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"), Some(Shape::MetadataList));
    let table = Accept::parse(Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")).unwrap();
    assert_eq!(table.shape, None);
    assert_eq!(table.header, "application/json;as=Table;g=meta.k8s.io;v=v1,application/json");
    for refused in [
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "application/json;stream=watch",
        "text/plain",
        "application/json;q=0",
        "application/json;as=Table",
    ] {
        assert_eq!(Accept::parse(Some(refused)).unwrap_err().code, 406, "{refused}");
    }
    assert_eq!(
        Accept::parse(Some("application/vnd.kubernetes.protobuf, application/json")).unwrap().header,
        "application/json"
    );
}

#[test]
fn bodies_pass_in_formats_that_the_host_can_tell_apart_only() {
    assert_eq!(ContentType::parse(Method::Post, Some("application/json; charset=utf-8")).unwrap(), ContentType::Json);
    assert_eq!(ContentType::parse(Method::Post, None).unwrap(), ContentType::Json);
    assert_eq!(ContentType::parse(Method::Patch, Some("application/apply-patch+yaml")).unwrap(), ContentType::Apply);
    for (method, header) in [
        (Method::Post, Some("application/yaml")),
        (Method::Post, Some("application/vnd.kubernetes.protobuf")),
        (Method::Put, Some("application/merge-patch+json")),
        (Method::Patch, Some("application/json")),
        (Method::Patch, Some("application/apply-patch+cbor")),
        (Method::Patch, None),
    ] {
        assert_eq!(ContentType::parse(method, header).unwrap_err().code, 415, "{header:?}");
    }
}

#[test]
fn a_refusal_is_a_kubernetes_status() {
    let status: serde_json::Value = serde_json::from_slice(&Refusal::forbidden("no \"x\"").to_status()).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["apiVersion"], "v1");
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["code"], 403);
    assert_eq!(status["reason"], "Forbidden");
    assert_eq!(status["message"], "no \"x\"");
}

#[test]
fn a_path_that_is_too_long_is_refused() {
    assert_eq!(refused("GET", &format!("/api/v1/configmaps?labelSelector={}", "a".repeat(MAX_PATH_AND_QUERY))), 414);
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "api", "apis", "v1", "apps", "namespaces", "configmaps", "a", "x", "status", "watch", "finalize", "proxy", "pods", "log",
        ])
        .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", ".", "..", "%2e", "%2F", "%2f", "%25", "%61", "A", "%", "é", "a b", "system%3Ax", "x;y"])
            .prop_map(str::to_owned),
        1 => "[a-z0-9.%;:~-]{0,6}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let pair = prop_oneof![
        prop::sample::select(vec![
            "watch",
            "watch=0",
            "labelSelector=a%3Db",
            "fieldSelector=metadata.name=x",
            "limit=5",
            "continue=t",
            "resourceVersion=0",
            "dryRun=All",
            "fieldManager=me",
            "force=1",
            "gracePeriodSeconds=0",
            "pretty=true",
            "tailLines=3",
            "",
            ";",
            "%zz",
            "x=y",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z%=+]{0,8}",
    ];
    prop_oneof![Just(String::new()), prop::collection::vec(pair, 0..4).prop_map(|p| format!("?{}", p.join("&")))]
}

fn line() -> impl Strategy<Value = (String, String)> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE"]);
    (method, prop::collection::vec(segment(), 0..8), query())
        .prop_map(|(method, path, query)| (method.to_owned(), format!("/{}{query}", path.join("/"))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_rebuilt_means_the_same((method, path) in line()) {
        if let Ok(request) = ApiRequest::parse(&method, &path) {
            let rebuilt = request.to_path_and_query();
            prop_assert_eq!(&ApiRequest::parse(&method, &rebuilt).unwrap(), &request);
            prop_assert_eq!(ApiRequest::parse(&method, &rebuilt).unwrap().to_path_and_query(), rebuilt);
        }
    }

    #[test]
    fn what_is_sent_holds_no_sequence_that_a_server_or_proxy_reads_differently((method, path) in line()) {
        if let Ok(request) = ApiRequest::parse(&method, &path) {
            let sent = request.to_path_and_query();
            let path = sent.split('?').next().unwrap();
            let lower = path.to_ascii_lowercase();
            for forbidden in ["//", "/./", "/../", "%2f", "%5c", "%25", "%00", ";", "#", "\\", " "] {
                prop_assert!(!lower.contains(forbidden), "{} in {}", forbidden, sent);
            }
            prop_assert!(!path.ends_with('/') && !path.ends_with("/.") && !path.ends_with("/.."), "{}", sent);
            prop_assert!(sent.is_ascii());
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(method in "\\PC{0,8}", path in "(/|\\PC|%[0-9a-fA-F]{0,2}){0,60}") {
        let _ = ApiRequest::parse(&method, &path);
        let _ = ApiRequest::parse("GET", &path);
        let _ = Accept::parse(Some(&path));
        let _ = ContentType::parse(Method::Patch, Some(&path));
    }
}
