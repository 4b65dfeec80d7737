//! What goes upstream, what does not, and what comes back.

use super::*;

// Rules 15-18
#[tokio::test]
async fn headers_that_go_upstream_are_the_hosts_own() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    let mut sent = request("GET", MAP, "");
    for (name, value) in [
        ("authorization", "Bearer stolen"),
        ("impersonate-user", "system:admin"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-x", "y"),
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("cookie", "c"),
        ("connection", "upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("user-agent", "kubectl"),
        ("x-http-method-override", "DELETE"),
    ] {
        sent.headers_mut().append(name, HeaderValue::from_static(value));
    }
    world.send(sent).await;
    let received = world.server.received().remove(0);
    let mut names: Vec<_> = received.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "impersonate-user", "user-agent"]);
    assert_eq!(received.headers.get_all("impersonate-user").iter().collect::<Vec<_>>(), [USER]);
    assert!(received.headers["user-agent"].to_str().unwrap().ends_with("guest/ring"));
}

#[tokio::test]
async fn a_guest_without_a_proper_identity_is_not_made() {
    let world = World::new(|_| ok("{}"));
    for user in ["", "system:admin", "system:serviceaccount:host:", "system:serviceaccount:a:b\n"] {
        let made = world.gateway.guest(GuestAccess { user: user.to_owned(), ..access("other") });
        assert!(matches!(made, Err(InvalidAccess::User(_))), "{user}");
    }
    assert!(matches!(world.gateway.guest(access("Bad Name")), Err(InvalidAccess::Name(_))));
}

#[tokio::test]
async fn an_identity_that_the_server_takes_for_another_is_refused() {
    let answer = |name: &str| json!({"status":{"userInfo":{"username":name}}}).to_string();
    let (right, wrong) = (answer(USER), answer("system:serviceaccount:host:wasm-operator"));
    let mut answers =
        vec![ok(right), ok(wrong), Reply::Json(403, r#"{"message":"cannot impersonate"}"#.into()), ok("{}")]
            .into_iter();
    let world = World::new(move |_| answers.next().unwrap());
    assert_eq!(world.gateway.verify_identity(USER).await, Ok(()));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Different { .. })));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Forbidden { .. })));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Unanswered { .. })));
    assert!(matches!(world.gateway.verify_identity("").await, Err(IdentityError::Invalid(_))));
    assert_eq!(world.server.received()[0].headers["impersonate-user"], USER);
}

#[tokio::test]
async fn only_the_exact_authority_is_the_api_server() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    for uri in ["https://kubernetes.default.svc/version", "https://kubernetes.default.svc:443/version"] {
        let answer = world.guest.send(Request::get(uri).body(Bytes::new()).unwrap(), Duration::from_secs(1)).await;
        assert_eq!(answer.unwrap().status(), 200, "{uri}");
    }
    for uri in [
        "http://kubernetes.default.svc/version",
        "https://x@kubernetes.default.svc/version",
        "https://kubernetes.default.svc:6443/version",
        "https://kubernetes.default/version",
        "https://kubernetes.default.svc.cluster.local/version",
    ] {
        let answer = world.guest.send(Request::get(uri).body(Bytes::new()).unwrap(), Duration::from_secs(1)).await;
        assert!(answer.is_err(), "{uri}");
    }
    assert_eq!(world.server.received().len(), 2);
}

#[tokio::test]
async fn what_is_not_granted_is_never_sent() {
    let world = World::new(|_| ok("{}"));
    for (method, path) in [
        ("GET", "/api/v1/namespaces/b/configmaps/x"),
        ("GET", "/api/v1/configmaps"),
        ("GET", "/api/v1/namespaces/a/secrets/x"),
        ("DELETE", "/api/v1/namespaces/a/pods/x"),
        ("POST", "/api/v1/namespaces/a/pods/x/exec"),
    ] {
        let status = world.status(request(method, path, "")).await;
        assert_eq!(status["code"], 403, "{method} {path}");
        assert_eq!(status["reason"], "Forbidden");
        assert!(status["message"].as_str().unwrap().contains("guest `ring` may not"), "{status}");
    }
    assert!(world.server.received().is_empty());
}

#[tokio::test]
async fn refusals_are_kubernetes_statuses() {
    let mut access = access("ring");
    access.limits.request_bytes = 10;
    let world = World::with(access, |_| ok("{}"));
    let with = |mut request: Request<Bytes>, name: &'static str, value: &'static str| {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    for (code, request) in [
        (400, request("GET", "/api/v1/namespaces/a/../b/configmaps", "")),
        (400, request("DELETE", "/api/v1/namespaces/a/configmaps/", "")),
        (400, request("DELETE", "/api/v1/namespaces/a/configmaps/x?dryRun=All", "{}")),
        (404, request("GET", "/healthz", "")),
        (405, request("HEAD", MAP, "")),
        (405, request("OPTIONS", MAP, "")),
        (406, with(request("GET", MAP, ""), "accept", "application/yaml")),
        (406, with(request("PUT", MAP, "{}"), "accept", "application/json;as=Table;v=v1;g=meta.k8s.io")),
        (413, request("PUT", MAP, "{\"a\":\"123456789\"}")),
        (415, with(request("PUT", MAP, "{}"), "content-type", "application/yaml")),
        (400, request("GET", MAP, "{}")),
    ] {
        assert_eq!(world.status(request).await["code"], code);
    }
    assert!(world.server.received().is_empty());
}

// Rule 22
#[tokio::test]
async fn writes_carry_the_guests_field_manager() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    world.send(request("POST", MAPS, "{}")).await;
    world.send(request("PUT", &format!("{MAP}?fieldManager=status"), "{}")).await;
    world.send(apply(&format!("{MAP}?force=true"))).await;
    world.send(request("DELETE", MAP, "{}")).await;
    let paths: Vec<_> = world.server.received().into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths,
        [
            format!("{MAPS}?fieldManager=ring"),
            format!("{MAP}?fieldManager=ring%2Fstatus"),
            format!("{MAP}?fieldManager=ring&force=true"),
            MAP.to_owned(),
        ]
    );
    let long = "x".repeat(130);
    assert_eq!(world.status(request("POST", &format!("{MAPS}?fieldManager={long}"), "{}")).await["code"], 400);
}

// Rule 23
#[tokio::test]
async fn guests_never_see_managed_fields() {
    let world = World::new(|received| match received.method.as_str() {
        "GET" if received.path.ends_with("configmaps") => ok(format!(r#"{{"items":[{}]}}"#, map("x", "u", 5, ""))),
        _ => ok(map("x", "u", 5, "")),
    });
    for sent in [request("GET", MAP, ""), request("GET", MAPS, ""), request("PUT", MAP, "{}")] {
        let (_, _, body) = world.send(sent).await;
        assert!(!body.contains("managedFields") && body.contains("\"d\""), "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_cut_with_an_error() {
    let mut access = access("ring");
    access.limits.response_bytes = 100;
    let world = World::with(access, |_| ok(map("x", "u", 5, &"d".repeat(200))));
    // Announced lengths are refused at once, with a message that says what to do.
    let status = world.status(request("GET", MAP, "")).await;
    assert_eq!(status["code"], 413);
    assert!(status["message"].as_str().unwrap().contains("responseBytes"));
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 413);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_and_a_body_counts() {
    let mut access = access("ring");
    access.limits.requests_in_flight = 2;
    let world = World::with(access, |_| ok(map("x", "u", 5, "")));
    let first = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    let second = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    let third = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    assert_eq!(
        (first.status(), second.status(), third.status().as_u16()),
        (http::StatusCode::OK, http::StatusCode::OK, 429)
    );
    assert_eq!(third.headers()["retry-after"], "1");
    drop(first);
    assert_eq!(world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap().status(), 200);
}

// Rule 39
#[tokio::test]
async fn metric_labels_hold_no_text_that_a_guest_made_up() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    for n in 0..50 {
        world.send(request("GET", &format!("/apis/g{n}.example/v1/namespaces/a/made{n}/x"), "")).await;
    }
    world.send(request("GET", MAP, "")).await;
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("calls", "", world.metrics.api_calls.clone());
    registry.register("denied", "", world.metrics.api_denied.clone());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(!text.contains("made"), "{text}");
    assert!(text.contains(r#"calls_total{guest="ring",verb="get",resource="other",code="403"} 50"#), "{text}");
    assert!(text.contains(r#"calls_total{guest="ring",verb="get",resource="configmaps",code="200"} 1"#), "{text}");
    assert!(text.contains(r#"denied_total{guest="ring",verb="get",resource="other"} 50"#), "{text}");
}

#[tokio::test]
async fn log_text_passes_as_it_is() {
    let world =
        World::new(|_| Reply::Text(200, &[("content-type", "text/plain")], "{\"metadata\":{\"managedFields\":1}}"));
    let (code, headers, body) = world.send(request("GET", "/api/v1/namespaces/a/pods/x/log?tailLines=5", "")).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "text/plain"));
    assert_eq!(body, "{\"metadata\":{\"managedFields\":1}}");
}

#[tokio::test]
async fn the_body_goes_upstream_unchanged() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    world.send(request("PATCH", MAP, "{\"a\" : 1.50}")).await;
    let received = world.server.received().remove(0);
    assert_eq!(received.body, "{\"a\" : 1.50}");
    assert_eq!(received.headers["content-type"], "application/merge-patch+json");
}
