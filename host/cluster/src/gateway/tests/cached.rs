//! Reads of any version, and what a guest's own writes mean for them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_write_of_a_dropped_guest_keeps_its_place_in_flight() {
    let mut access = access("ring");
    access.limits.requests_in_flight = 1;
    let world = World::with(access, |_| Reply::Never);
    let send = world.guest.send(request("PUT", MAP, "{}"), Duration::from_secs(5));
    assert!(futures::FutureExt::now_or_never(send).is_none());
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 429);
    // Until its time is over.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 504);
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_on_when_the_guest_is_dropped() {
    let world = World::new(|_| ok(map("x", "u", 50, "")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    let send = world.guest.send(request("PUT", MAP, "{}"), Duration::from_secs(5));
    // Polled once, so that it is under way, and dropped.
    assert!(futures::FutureExt::now_or_never(send).is_none());
    while world.server.received().is_empty() || !world.guest.echo_pending() {
        tokio::task::yield_now().await;
    }
}

// Rules 9-14 and 25
#[tokio::test(start_paused = true)]
async fn reads_of_any_version_come_from_the_cache() {
    let world = World::new(|received| panic!("{received:?}"));
    world.cache.set(40, &[map("x", "u", 40, "one"), map("y", "v", 39, "two")]);
    let (code, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!((code, &object["data"]["d"]), (200, &json!("one")));
    assert_eq!(object["metadata"].get("managedFields"), None);
    let (code, list) = world.read(&format!("{MAPS}?resourceVersion=0&limit=1")).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 2), "a list of any version ignores the limit");
    assert_eq!(list["metadata"]["resourceVersion"], "40");
    let (_, list) = world.read(&format!("{MAPS}?resourceVersion=0&fieldSelector=metadata.name%3Dy")).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "y");
    let (code, status) = world.read("/api/v1/namespaces/a/configmaps/none?resourceVersion=0").await;
    assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
}

#[tokio::test]
async fn what_the_cache_cannot_answer_is_forwarded_without_a_version() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    // Nothing listed yet.
    world.send(request("GET", &format!("{MAP}?resourceVersion=0"), "")).await;
    world.cache.set(40, &[map("x", "u", 40, "one")]);
    for query in [
        "resourceVersion=0&fieldSelector=data.x%3Dy",
        "resourceVersion=00",
        "resourceVersion=5",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "resourceVersion=0&continue=abc",
        "",
    ] {
        world.send(request("GET", &format!("{MAPS}?{query}"), "")).await;
    }
    let mut table = request("GET", &format!("{MAPS}?resourceVersion=0"), "");
    table.headers_mut().insert("accept", HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io"));
    world.send(table).await;
    let paths: Vec<_> = world.server.received().into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths,
        [
            MAP.to_owned(),
            format!("{MAPS}?fieldSelector=data.x%3Dy"),
            format!("{MAPS}?resourceVersion=00"),
            format!("{MAPS}?resourceVersion=5"),
            format!("{MAPS}?resourceVersion=0&resourceVersionMatch=Exact"),
            format!("{MAPS}?continue=abc&resourceVersion=0"),
            MAPS.to_owned(),
            MAPS.to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cache_of_selected_objects_answers_with_those_and_denies_none() {
    let world = World::selecting("app=x", |received| {
        if received.path.contains("labelSelector") { ok(r#"{"items":[]}"#) } else { ok(map("y", "v", 50, "upstream")) }
    });
    let labelled = map("x", "u", 40, "cached").replace(r#""metadata":{"#, r#""metadata":{"labels":{"app":"x"},"#);
    world.cache.set(40, &[labelled]);
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.1["data"]["d"], "cached");
    let (_, list) = world.read(&format!("{MAPS}?resourceVersion=0&labelSelector=app%3Dx")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(world.server.received().is_empty());
    assert_eq!(world.read(&format!("{MAPS}/y?resourceVersion=0")).await.1["data"]["d"], "upstream");
    world.read(&format!("{MAPS}?resourceVersion=0")).await;
    world.read(&format!("{MAPS}?resourceVersion=0&labelSelector=app%3Dy")).await;
    let paths: Vec<_> = world.server.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, [format!("{MAPS}/y"), MAPS.to_owned(), format!("{MAPS}?labelSelector=app%3Dy")]);
}

#[tokio::test(start_paused = true)]
async fn an_own_write_is_awaited_by_a_cache_of_selected_objects_and_what_left_it_is_read_upstream() {
    let world = World::selecting("app=x", |received| {
        ok(map("x", "u", 50, if received.method == "PUT" { "" } else { "upstream" }))
    });
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let cache = world.cache.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cache.set(50, &[]);
    });
    let started = Instant::now();
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.1["data"]["d"], "upstream");
    assert_eq!(started.elapsed(), Duration::from_millis(30));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_deleted_is_not_denied_by_a_cache_of_selected_objects() {
    let world = World::selecting("app=x", |received| match received.method.as_str() {
        "DELETE" => ok(r#"{"kind":"Status","status":"Success","details":{"name":"x","uid":"u"}}"#),
        _ => ok(map("x", "w", 60, "successor")),
    });
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("DELETE", MAP, "{}")).await;
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.1["data"]["d"], "successor");
}

#[tokio::test(start_paused = true)]
async fn a_cached_read_waits_for_the_echo_of_the_guests_own_write() {
    let world = World::new(|received| match received.method.as_str() {
        "PUT" => ok(map("x", "u", 50, "new")),
        _ => panic!("{received:?}"),
    });
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    assert!(world.guest.echo_pending());
    let cache = world.cache.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cache.set(45, &[map("x", "u", 40, "old"), map("y", "v", 45, "")]);
        tokio::time::sleep(Duration::from_millis(30)).await;
        cache.set(50, &[map("x", "u", 50, "new"), map("y", "v", 45, "")]);
    });
    let (_, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!(object["data"]["d"], "new");
    assert!(!world.guest.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn another_guest_does_not_wait_for_it() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let other = world.gateway.guest(access("other")).unwrap();
    let answer =
        other.send(request("GET", &format!("{MAP}?resourceVersion=0"), ""), Duration::from_secs(1)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("old"));
}

// Rule 13
#[tokio::test(start_paused = true)]
async fn after_five_seconds_of_waiting_the_server_is_asked() {
    let world = World::new(|received| ok(map("x", "u", 50, if received.method == "PUT" { "" } else { "fresh" })));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let started = Instant::now();
    let (_, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!(object["data"]["d"], "fresh");
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(world.server.received()[1].path, MAP);
    assert!(!world.guest.echo_pending(), "a guest is not kept awake for an echo that does not come");
    let started = Instant::now();
    world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert!(started.elapsed() < Duration::from_secs(1), "the next read does not wait again");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_configuration_keeps_what_is_known_of_writes() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let again = world.gateway.guest(access("ring")).unwrap();
    assert!(Arc::ptr_eq(&again, &world.guest) && again.echo_pending());
    again.forget_writes("", "configmaps");
    assert!(!again.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_echo_is_told() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let started = Instant::now();
    let settled = tokio::spawn(world.guest.echo_settled());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!settled.is_finished());
    world.cache.set(50, &[map("x", "u", 50, "new")]);
    settled.await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
    world.guest.echo_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_is_waited_for_until_the_cache_shows_what_the_guest_wrote_to_it() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old"), map("y", "v", 39, "")]);
    world.send(request("PUT", MAP, "{}")).await;
    let seen = |name: &'static str| {
        let guest = world.guest.clone();
        let object = ObjectRef { namespace: Some("a".into()), name: name.into() };
        tokio::spawn(async move { guest.own_writes_seen("", "configmaps", &object).await })
    };
    let started = Instant::now();
    seen("y").await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "another object does not wait");
    let written = seen("x");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!written.is_finished());
    world.cache.set(50, &[map("x", "u", 50, "new")]);
    written.await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn an_object_of_a_broken_watch_is_waited_for_no_longer_than_five_seconds() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let started = Instant::now();
    let object = ObjectRef { namespace: Some("a".into()), name: "x".into() };
    world.guest.own_writes_seen("", "configmaps", &object).await;
    assert!((Duration::from_secs(4)..=Duration::from_secs(5)).contains(&started.elapsed()), "{:?}", started.elapsed());
}

// Rule 26
#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_gone_from_the_cache_at_once() {
    let world = World::new(|_| ok(r#"{"kind":"Status","status":"Success","details":{"name":"x","uid":"u"}}"#));
    world.cache.set(40, &[map("x", "u", 40, "old"), map("y", "v", 39, "")]);
    world.send(request("DELETE", MAP, "{}")).await;
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.0, 404);
    let (_, list) = world.read(&format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    world.cache.set(60, &[map("x", "w", 60, "successor")]);
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.1["data"]["d"], "successor");
}

// Rule 30
#[tokio::test(start_paused = true)]
async fn after_a_lost_write_reads_go_upstream_until_the_cache_has_passed_a_fresh_list() {
    let world = World::new(|received| match received.method.as_str() {
        "PATCH" => Reply::Break,
        _ if received.path.contains("limit=1") => {
            assert!(!received.headers.contains_key("impersonate-user"));
            ok(r#"{"metadata":{"resourceVersion":"70"},"items":[]}"#)
        }
        _ => ok(map("x", "u", 60, "upstream")),
    });
    world.cache.set(65, &[map("x", "u", 40, "cached")]);
    assert_eq!(world.send(request("PATCH", MAP, "{}")).await.0, 504);
    let path = format!("{MAP}?resourceVersion=0");
    assert_eq!(world.read(&path).await.1["data"]["d"], "upstream");
    while !world.server.received().iter().any(|r| r.path.contains("limit=1")) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.read(&path).await.1["data"]["d"], "upstream");
    world.cache.set(70, &[map("x", "u", 60, "cached")]);
    assert_eq!(world.read(&path).await.1["data"]["d"], "cached");
}
