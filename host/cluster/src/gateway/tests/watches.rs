//! Watches of a guest, with time and the server in the test's hands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::*;
use crate::informer::{Informers, Options as InformerOptions};
use crate::metrics::Metrics;

/// A server that answers requests for ConfigMaps with these, then never again.
struct Scene {
    gateway: Gateway,
    guest: Arc<GuestGateway>,
    asked: Arc<AtomicUsize>,
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
    fn new(answers: &[String]) -> Self {
        let mut answers: VecDeque<String> = answers.iter().cloned().collect();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let server = Server::new(move |request| {
            if request.path == "/api/v1" {
                let kind =
                    json!({"name":"configmaps","singularName":"","namespaced":true,"kind":"ConfigMap","verbs":[]});
                return ok(json!({"kind":"APIResourceList","groupVersion":"v1","resources":[kind]}).to_string());
            }
            count.fetch_add(1, Ordering::Relaxed);
            answers.pop_front().map_or(Reply::Never, ok)
        });
        let (client, rights) = (server.client.clone(), Rights::new(server.client.clone()));
        let informers = Informers::new(
            client.clone(),
            rights.clone(),
            Metrics::default(),
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
        Self { gateway, guest, asked }
    }

    async fn watch(&self, query: &str) -> Body {
        let request = request("GET", &format!("{MAPS}?watch=1&{query}"), "");
        let answer = self.guest.send(request, Duration::from_secs(60)).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body()
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
