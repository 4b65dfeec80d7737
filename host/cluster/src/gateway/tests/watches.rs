//! Watches of a guest, with time and the server in the test's hands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::*;
use crate::informer::{Informers, Options as InformerOptions};
use crate::metrics::{Metrics, ResourceLabel};

/// A server that answers requests for ConfigMaps as the test says, and a guest that watches for itself.
struct Scene {
    server: Server,
    gateway: Gateway,
    guest: Arc<GuestGateway>,
    asked: Arc<AtomicUsize>,
    metrics: Metrics,
}

fn line(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u32, annotations: &str) -> String {
    line("BOOKMARK", &format!(r#"{{"metadata":{{"resourceVersion":"{version}","annotations":{{{annotations}}}}}}}"#))
}

fn listed(objects: &[String], version: u32) -> String {
    let objects: String = objects.iter().map(|object| line("ADDED", object)).collect();
    objects + &bookmark(version, r#""k8s.io/initial-events-end":"true""#)
}

fn too_old() -> String {
    line("ERROR", r#"{"kind":"Status","code":410,"message":"too old"}"#)
}

impl Scene {
    /// The server answers with these, then never again.
    fn new(answers: &[String]) -> Self {
        let mut answers: VecDeque<String> = answers.iter().cloned().collect();
        Self::with(move |_| answers.pop_front().map_or(Reply::Never, ok))
    }

    fn with(mut answer: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let server = Server::new(move |request| {
            if request.path == "/api/v1" {
                let kind =
                    json!({"name":"configmaps","singularName":"","namespaced":true,"kind":"ConfigMap","verbs":[]});
                return ok(json!({"kind":"APIResourceList","groupVersion":"v1","resources":[kind]}).to_string());
            }
            count.fetch_add(1, Ordering::Relaxed);
            answer(request)
        });
        let metrics = Metrics::default();
        let (client, rights) = (server.client.clone(), Rights::new(server.client.clone()));
        let informers = Informers::new(
            client.clone(),
            rights.clone(),
            metrics.clone(),
            InformerOptions::default(),
            Handle::current(),
        );
        let gateway = Gateway::new(
            client,
            Arc::new(informers),
            rights,
            GatewayMetrics::default(),
            Options::new(Handle::current()),
        );
        let guest = gateway.guest(GuestAccess { shared_watches: true, ..access("ring") }).unwrap();
        Self { server, gateway, guest, asked, metrics }
    }

    async fn watch(&self, query: &str) -> Body {
        let request = request("GET", &format!("{MAPS}?watch=1&{query}"), "");
        let answer = self.guest.send(request, Duration::from_secs(60)).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    async fn send(&self, guest: &Arc<GuestGateway>, method: &str, path: &str) -> u16 {
        let answer =
            guest.send(request(method, path, if method == "GET" { "" } else { "{}" }), Duration::from_secs(60));
        answer.await.unwrap().status().as_u16()
    }

    /// Waits until the server has been asked so often.
    async fn asked(&self, times: usize) {
        while self.asked.load(Ordering::Relaxed) < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The lines that come within ten minutes, at most so many.
async fn lines(body: &mut Body, most: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < most {
        match timeout(Duration::from_secs(600), body.frame()).await {
            Ok(Some(frame)) => {
                let data = frame.unwrap().into_data().unwrap();
                for line in String::from_utf8(data.to_vec()).unwrap().lines() {
                    let event: Value = serde_json::from_str(line).unwrap();
                    let metadata = &event["object"]["metadata"];
                    let what = if event["type"] == "ERROR" { &event["object"]["code"] } else { &metadata["name"] };
                    let version = metadata["resourceVersion"].as_str().unwrap_or_default();
                    all.push(format!("{} {what} {version}", event["type"].as_str().unwrap()).replace('"', ""));
                }
            }
            Ok(None) => {
                all.push("end".to_owned());
                break;
            }
            Err(_) => break,
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_sleeps_gets_no_bookmark_and_one_that_wakes_does() {
    let scene = Scene::new(&[listed(&[], 10), bookmark(20, "")]);
    let mut body = scene.watch("resourceVersion=10&allowWatchBookmarks=true").await;
    let mut without = scene.watch("resourceVersion=10").await;
    scene.asked(3).await;
    assert!(lines(&mut body, 1).await.is_empty());
    scene.guest.set_awake(true);
    assert_eq!(lines(&mut body, 9).await, ["BOOKMARK null 20"]);
    assert!(lines(&mut without, 1).await.is_empty());
    // There is no other news.
    scene.guest.set_awake(false);
    scene.guest.set_awake(true);
    assert!(lines(&mut body, 1).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_streaming_list_is_told_whether_the_guest_sleeps_or_not() {
    let scene = Scene::new(&[listed(&[map("x", "u1", 5, "1")], 10)]);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    assert_eq!(lines(&mut scene.watch(query).await, 9).await, ["ADDED x 5", "BOOKMARK null 10"]);
    assert_eq!(lines(&mut scene.watch("").await, 9).await, ["ADDED x 5"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_host_finds_by_listing_again_is_told_as_it_must_have_happened() {
    let first = listed(&[map("a", "u1", 5, "1"), map("b", "u2", 6, "1")], 10);
    let second = listed(&[map("b", "u2", 15, "2"), map("c", "u3", 12, "1")], 20);
    let scene = Scene::new(&[first, too_old(), second]);
    let mut body = scene.watch("resourceVersion=10").await;
    assert_eq!(lines(&mut body, 3).await, ["ADDED c 12", "MODIFIED b 15", "DELETED a 20"]);
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_ends_watches_with_410() {
    let first = listed(&[map("a", "u1", 5, "1")], 10);
    let scene = Scene::new(&[first, too_old(), listed(&[map("a", "u1", 5, "1")], 8)]);
    let mut body = scene.watch("resourceVersion=10").await;
    assert_eq!(lines(&mut body, 9).await, ["ERROR 410 ", "end"]);
    // A version that the new history does not reach is waited for as long as the server sends no bookmark, not longer.
    let mut ahead = scene.watch("resourceVersion=9").await;
    assert_eq!(lines(&mut ahead, 9).await, ["ERROR 410 ", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_has_the_time_that_it_asks_for_and_none_if_it_asks_for_none() {
    let scene = Scene::new(&[listed(&[], 10)]);
    let mut short = scene.watch("resourceVersion=10&timeoutSeconds=300").await;
    let begun = Instant::now();
    assert_eq!(lines(&mut short, 1).await, ["end"]);
    assert_eq!(begun.elapsed().as_secs(), 300);
    let mut long = scene.watch("resourceVersion=10&timeoutSeconds=0").await;
    for _ in 0..6 * 24 {
        assert!(lines(&mut long, 1).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn another_identity_begins_its_watches_anew() {
    let scene = Scene::new(&[listed(&[], 10)]);
    let mut body = scene.watch("resourceVersion=10").await;
    let other = "system:serviceaccount:host:guest-other".to_owned();
    scene.gateway.guest(GuestAccess { shared_watches: true, user: other, ..access("ring") }).unwrap();
    assert_eq!(lines(&mut body, 1).await, ["end"]);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lost_its_connection_does_not_say_what_there_is_now() {
    let scene = Scene::new(&[listed(&[map("x", "u1", 5, "1")], 10)]);
    let _watch = scene.watch("resourceVersion=10").await;
    let list = async |query: &str| {
        let request = request("GET", &format!("{MAPS}{query}"), "");
        let answer = scene.guest.send(request, Duration::from_secs(60)).await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!((list("").await, list("?limit=500").await), (200, 200));
    // The server does not answer the watch that follows, nor anything else.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((list("").await, list("?limit=500").await), (504, 504));
    assert_eq!(list("?resourceVersion=0").await, 200);
}

fn label() -> ResourceLabel {
    ResourceLabel { resource: "configmaps".to_owned() }
}

/// The path of a list, as a guest asks for it that will watch.
fn selected(field_selector: &str) -> String {
    format!("{MAPS}?limit=1&fieldSelector={}", field_selector.replace('=', "%3D"))
}

/// The server's answer to a list or a watch of a selector that it knows.
fn selected_maps(received: &Received, objects: &[String]) -> Reply {
    if received.path.contains("sendInitialEvents") {
        ok(listed(objects, 10))
    } else if received.path.contains("watch=1") {
        Reply::Never
    } else {
        ok(r#"{"metadata":{"resourceVersion":"10"},"items":[]}"#)
    }
}

#[tokio::test(start_paused = true)]
async fn a_selector_that_the_server_refuses_makes_nobody_wait_for_an_echo() {
    let scene = Scene::with(|received| match received.method.as_str() {
        "PUT" => ok(map("x", "u", 50, "")),
        _ => Reply::Json(400, json!({"kind":"Status","code":400,"message":"field label not supported"}).to_string()),
    });
    assert_eq!(scene.send(&scene.guest, "GET", &selected("x=y")).await, 400);
    assert_eq!(scene.metrics.watch_streams.get_or_create(&label()).get(), 1, "the stream is there for a while");
    let other = scene.gateway.guest(access("other")).unwrap();
    assert_eq!(scene.send(&other, "PUT", MAP).await, 200);
    assert!(!other.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn of_a_field_selector_only_what_it_holds_is_waited_for() {
    let scene = Scene::with(|received| match (received.method.as_str(), received.path.contains("/y")) {
        ("PUT", false) => ok(map("x", "u", 50, "")),
        ("PUT", true) => ok(map("y", "v", 51, "")),
        _ => selected_maps(received, &[map("y", "v", 5, "")]),
    });
    assert_eq!(scene.send(&scene.guest, "GET", &selected("data.d=1")).await, 200);
    let other = scene.gateway.guest(access("other")).unwrap();
    assert_eq!(scene.send(&other, "PUT", MAP).await, 200);
    assert!(!other.echo_pending());
    assert_eq!(scene.send(&other, "PUT", &format!("{MAPS}/y")).await, 200);
    assert!(other.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_makes_up_field_selectors_gets_few_streams_and_its_own_answers() {
    let scene = Scene::with(|received| selected_maps(received, &[]));
    let paths: Vec<_> = (0..12).map(|number| selected(&format!("data.d={number}"))).collect();
    let answers = paths.iter().map(|path| scene.send(&scene.guest, "GET", path));
    assert_eq!(futures::future::join_all(answers).await, [200; 12]);
    for number in 12..30 {
        assert_eq!(scene.send(&scene.guest, "GET", &selected(&format!("data.d={number}"))).await, 200);
    }
    assert_eq!(scene.metrics.watch_streams.get_or_create(&label()).get(), 8);
    let received = scene.server.received();
    let as_the_host = |received: &&Received| {
        received.path.contains("sendInitialEvents") && !received.headers.contains_key("impersonate-user")
    };
    assert_eq!(received.iter().filter(as_the_host).count(), 8);
    let own: Vec<_> = received.iter().filter(|received| received.path.contains("limit=1")).collect();
    assert_eq!(own.len(), 30, "the server answers each list");
    assert!(own.iter().all(|received| received.headers["impersonate-user"] == USER));
    // What is open is shared, also when no more is opened.
    let open = received.iter().find(as_the_host).unwrap().path.split(['?', '&']).find(|pair| pair.starts_with("field"));
    scene.watch(&format!("{}&resourceVersion=10", open.unwrap())).await;
    let own_watch =
        |received: &Received| received.path.contains("watch=1") && received.headers.contains_key("impersonate-user");
    assert!(!scene.server.received().iter().any(own_watch));
}

#[tokio::test(start_paused = true)]
async fn label_selectors_beside_a_field_selector_get_no_more_streams() {
    let scene = Scene::with(|received| selected_maps(received, &[]));
    for number in 0..30 {
        let path = format!("{}&labelSelector=l%3D{number}", selected("data.d=1"));
        assert_eq!(scene.send(&scene.guest, "GET", &path).await, 200);
    }
    assert_eq!(scene.metrics.watch_streams.get_or_create(&label()).get(), 8);
}

#[tokio::test(start_paused = true)]
async fn streams_with_field_selectors_make_room_when_they_end() {
    let scene = Scene::with(|received| selected_maps(received, &[]));
    for number in 0..30 {
        assert_eq!(scene.send(&scene.guest, "GET", &selected(&format!("data.d={number}"))).await, 200);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.metrics.watch_streams.get_or_create(&label()).get(), 0);
    assert_eq!(scene.send(&scene.guest, "GET", &selected("data.d=30")).await, 200);
    assert_eq!(scene.metrics.watch_streams.get_or_create(&label()).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_to_the_server_asks_for_bookmarks_only_to_end_its_initial_events() {
    let world = World::with(GuestAccess { shared_watches: true, ..access("ring") }, |_| ok(""));
    let initial = "resourceVersionMatch=NotOlderThan&sendInitialEvents=true";
    for query in
        ["resourceVersion=5", "resourceVersion=5&resourceVersionMatch=NotOlderThan&sendInitialEvents=false", initial]
    {
        let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&{query}");
        assert_eq!(world.send(request("GET", &path, "")).await.0, 200);
    }
    let received = world.server.received();
    let bookmarks: Vec<_> =
        received.iter().map(|received| received.path.contains("allowWatchBookmarks=true")).collect();
    assert_eq!(bookmarks, [false, false, true], "{received:?}");
}
