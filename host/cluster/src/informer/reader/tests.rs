use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;
use wasm_operator_core::object::ResourceVersion;
use wasm_operator_core::watch::{Representation, Resource};

use super::super::wire::Source;
use super::*;
use crate::metrics::Metrics;

const SILENCE: Duration = Duration::from_secs(75);
const END: &str = r#"{"metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}"#;

/// One answer of the server.
#[derive(Clone)]
struct Answer {
    status: u16,
    body: String,
    /// The connection stays open after the body, without a word.
    hangs: bool,
}

fn page(body: &str) -> Answer {
    Answer { status: 200, body: body.to_owned(), hangs: false }
}

fn refusal(status: u16) -> Answer {
    let body = format!(r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","code":{status}}}"#);
    Answer { status, body, hangs: false }
}

fn events(events: &[(&str, String)], hangs: bool) -> Answer {
    let body = events.iter().map(|(kind, object)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")).collect();
    Answer { status: 200, body, hangs }
}

fn object(name: &str, version: u32) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","uid":"{name}","resourceVersion":"{version}"}}}}"#)
}

fn bookmark(version: u32) -> (&'static str, String) {
    ("BOOKMARK", format!(r#"{{"metadata":{{"resourceVersion":"{version}"}}}}"#))
}

fn listed(names: &[&str]) -> Answer {
    let mut all: Vec<_> = names.iter().map(|name| ("ADDED", object(name, 5))).collect();
    all.push(("BOOKMARK", END.to_owned()));
    events(&all, false)
}

/// A server that gives these answers, then never answers again, and a reader that asks it.
struct Scene {
    stream: Arc<Stream>,
    uris: Arc<Mutex<Vec<String>>>,
    requests: watch::Receiver<usize>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Scene {
    fn new(answers: &[Answer]) -> Self {
        let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::new(Mutex::new(answers.iter().cloned().collect()));
        let uris = Arc::new(Mutex::new(Vec::new()));
        let (count, requests) = watch::channel(0);
        let (asked, count) = (uris.clone(), Arc::new(count));
        let service = tower::service_fn(move |request: Request<Body>| {
            let mut uris = asked.lock();
            uris.push(request.uri().to_string());
            count.send_replace(uris.len());
            let answer = answers.lock().pop_front();
            async move {
                let Some(Answer { status, body, hangs }) = answer else { return std::future::pending().await };
                let chunk = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(body)))]);
                let rest = if hangs { stream::pending().left_stream() } else { stream::empty().right_stream() };
                let response = Response::builder().status(status).body(StreamBody::new(chunk.chain(rest))).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        let source = Source {
            resource: Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() },
            namespace: None,
            label_selector: String::new(),
            field_selector: String::new(),
            representation: Representation::Full,
            private_to: None,
        };
        let stream = Arc::new(Stream::new(source, Metrics::default()));
        let client = Client::new(service, "default");
        let reader = tokio::spawn(run(client, Arc::downgrade(&stream), SILENCE, Random::new(1))).abort_handle();
        Self { stream, uris, requests, reader }
    }

    /// Waits for so many requests and returns the last one's query.
    async fn request(&mut self, number: usize) -> String {
        self.requests.wait_for(|count| *count >= number).await.unwrap();
        self.uris.lock()[number - 1].split_once('?').unwrap().1.to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.stream.list(|_| true).iter().map(|object| object.metadata.name.to_string()).collect()
    }

    fn position(&self) -> Option<ResourceVersion> {
        let mut position = None;
        self.stream.read(|store, _| position = store.position().cloned());
        position
    }
}

fn is_list(query: &str) -> bool {
    query.contains("sendInitialEvents=true")
}

fn resumes_at(query: &str, version: u32) -> bool {
    query.contains("watch=1") && query.contains(&format!("resourceVersion={version}&"))
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_the_list_is_sent_is_not_in_it() {
    let mut list = vec![("ADDED", object("a", 1)), ("ADDED", object("b", 2))];
    list.extend([("DELETED", object("b", 8)), ("MODIFIED", object("a", 9)), ("BOOKMARK", END.to_owned())]);
    let mut scene = Scene::new(&[events(&list, true)]);
    assert!(is_list(&scene.request(1).await));
    scene.request(2).await;
    assert_eq!(scene.names(), ["a"]);
    assert_eq!(scene.stream.list(|_| true)[0].metadata.resource_version.as_str(), "9");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_before_its_end_changes_nothing_and_begins_anew() {
    let cut = events(&[("ADDED", object("a", 1))], false);
    let mut scene = Scene::new(&[cut, listed(&["b"])]);
    assert!(is_list(&scene.request(2).await));
    scene.request(3).await;
    assert_eq!(scene.names(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_resumed_at_the_last_event_or_bookmark() {
    let first = events(&[("ADDED", object("b", 12)), bookmark(20)], false);
    let second = events(&[("DELETED", object("b", 25))], false);
    let mut scene = Scene::new(&[listed(&["a"]), first, second]);
    assert!(resumes_at(&scene.request(2).await, 10));
    assert!(resumes_at(&scene.request(3).await, 20));
    assert!(resumes_at(&scene.request(4).await, 25));
    assert_eq!(scene.names(), ["a"]);
    assert_eq!(scene.position(), Some(ResourceVersion::new("25")));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_cut_is_read_again() {
    let mut cut = events(&[("ADDED", object("b", 12)), ("ADDED", object("c", 13))], false);
    cut.body.truncate(cut.body.len() - 10);
    let mut scene = Scene::new(&[listed(&[]), cut]);
    assert!(resumes_at(&scene.request(3).await, 12));
    assert_eq!(scene.names(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_lists_again_however_the_server_says_it() {
    let in_the_stream = events(&[("ERROR", r#"{"kind":"Status","code":410,"reason":"Expired"}"#.to_owned())], false);
    for expired in [in_the_stream, refusal(410)] {
        let mut scene = Scene::new(&[listed(&["a", "b"]), expired, listed(&["b"])]);
        assert!(resumes_at(&scene.request(2).await, 10));
        assert!(is_list(&scene.request(3).await));
        scene.request(4).await;
        assert_eq!(scene.names(), ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_resumed_after_75_seconds() {
    let began = Instant::now();
    let silent = events(&[bookmark(20)], true);
    let mut scene = Scene::new(&[listed(&["a"]), silent]);
    assert!(resumes_at(&scene.request(3).await, 20));
    let waited = began.elapsed();
    assert!(waited >= SILENCE && waited < SILENCE + Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_from_the_start_is_ahead_of_the_server_and_lists() {
    let mut scene = Scene::new(&[listed(&["a"]), events(&[], true), listed(&["b"])]);
    assert!(resumes_at(&scene.request(2).await, 10));
    assert!(is_list(&scene.request(3).await));
    scene.request(4).await;
    assert_eq!(scene.names(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_again() {
    let mut scene = Scene::new(&[listed(&["a"])]);
    scene.request(4).await;
    assert_eq!(scene.names(), ["a"]);
    assert!(scene.stream.is_synced());
}

#[tokio::test(start_paused = true)]
async fn pages_are_put_together_and_an_expired_token_begins_anew() {
    let part = |names: &[&str], token: &str| {
        let items: Vec<_> = names.iter().map(|name| object(name, 5)).collect();
        page(&format!(
            r#"{{"metadata":{{"resourceVersion":"30","continue":"{token}"}},"items":[{}]}}"#,
            items.join(",")
        ))
    };
    let answers = [refusal(422), part(&["a"], "t1"), refusal(410), part(&["b"], "t2"), part(&["c"], "")];
    let mut scene = Scene::new(&answers);
    assert!(is_list(&scene.request(1).await));
    assert_eq!(scene.request(2).await, "limit=500");
    assert_eq!(scene.request(3).await, "limit=500&continue=t1");
    assert_eq!(scene.request(4).await, "limit=500");
    assert_eq!(scene.request(5).await, "limit=500&continue=t2");
    assert!(resumes_at(&scene.request(6).await, 30));
    assert_eq!(scene.names(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn refusals_keep_what_is_known_and_a_kind_that_stays_away_does_not() {
    let mut scene = Scene::new(&[listed(&["a"]), refusal(403), refusal(403), refusal(404), refusal(404), refusal(404)]);
    // Twice forbidden, twice not served.
    scene.request(5).await;
    assert_eq!(scene.names(), ["a"]);
    assert!(is_list(&scene.request(7).await));
    assert!(scene.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn garbage_is_not_taken_for_events() {
    let garbage = Answer { status: 200, body: "<html>\n".to_owned(), hangs: false };
    let mut scene = Scene::new(&[garbage.clone(), listed(&["a"]), garbage, listed(&["a"])]);
    assert!(is_list(&scene.request(2).await));
    assert!(is_list(&scene.request(4).await));
    assert_eq!(scene.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_reader_ends_when_nobody_holds_the_stream() {
    let mut scene = Scene::new(&[listed(&["a"]), events(&[bookmark(20)], false)]);
    scene.request(2).await;
    let reader = scene.reader.clone();
    scene.stream = Arc::new(Stream::new(scene.stream.source.clone(), Metrics::default()));
    while !reader.is_finished() {
        tokio::time::sleep(SILENCE).await;
    }
}

async fn lines(chunks: &[&str]) -> Vec<Result<Option<String>, String>> {
    let chunks: Vec<std::io::Result<Vec<u8>>> = chunks.iter().map(|chunk| Ok(chunk.as_bytes().to_vec())).collect();
    let mut body = pin!(futures::TryStreamExt::into_async_read(stream::iter(chunks)));
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        match read_line(&mut body, &mut line).await {
            Ok(true) => all.push(Ok(Some(String::from_utf8(line).unwrap()))),
            Ok(false) => {
                all.push(Ok(None));
                return all;
            }
            Err(end) => {
                all.push(Err(end.to_string()));
                return all;
            }
        }
    }
}

#[tokio::test]
async fn lines_come_whole_however_they_are_cut_on_the_way() {
    let line = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(lines(&["a\nb", "c\n\n", "\nd", "\n"]).await, [line("a"), line("bc"), line("d"), Ok(None)]);
}

#[tokio::test]
async fn a_line_without_end_is_given_up() {
    let megabyte = "x".repeat(1 << 20);
    let chunks: Vec<&str> = (0..40).map(|_| megabyte.as_str()).collect();
    assert!(lines(&chunks).await.first().is_some_and(Result::is_err));
}
