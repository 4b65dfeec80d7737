use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::limits::{BODY_TIME, MAX_BODY_BYTES};
use super::*;

/// Less than any time after which the service gives up by itself.
const SOON: Duration = Duration::from_secs(4);

struct Service {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    Service { address, stop, task: tokio::spawn(serve(listener, 1, stopped)) }
}

impl Service {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// Status and body of the answer to a body.
    async fn post(&self, body: &str) -> (String, String) {
        let answer = self.ask(&post(body)).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), body.to_owned())
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /prediction HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn without_end(body: &str) -> String {
    let mut request = post(body);
    request.pop();
    request
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // Reset by the service after its answer, when it did not want to read the rest.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("no answer");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_forecast_has_the_originals_format() {
    let service = start().await;
    let micros = r#"{"history": ["2023-01-23T13:04:03Z", "2023-01-23T13:04:05.5Z"], "function": "SES"}"#;
    assert_eq!(service.post(micros).await, ("200".into(), r#"{"prediction": "2023-01-23T13:04:08.000000Z"}"#.into()));
    let nanos = r#"{"history": ["2023-01-23T13:04:03.182471956Z"]}"#;
    assert_eq!(service.post(nanos).await, ("200".into(), r#"{"prediction": "2023-01-23T13:04:06.182471956Z"}"#.into()));
    let answer = service.ask(&post(nanos)).await.to_lowercase();
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
}

#[tokio::test]
async fn a_history_without_events_is_answered_with_three_seconds_from_now() {
    let service = start().await;
    let before = jiff::Timestamp::now();
    let (_, body) = service.post(r#"{"history": []}"#).await;
    let after = jiff::Timestamp::now();
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let moment: jiff::Timestamp = answer["prediction"].as_str().unwrap().parse().unwrap();
    let three = jiff::SignedDuration::from_secs(3);
    assert!(before + three <= moment && moment <= after + three, "{body}");
}

#[tokio::test]
async fn an_unknown_function_has_the_originals_body_and_a_status() {
    let service = start().await;
    let answer = service.post(r#"{"history": [], "function": "Prophet"}"#).await;
    assert_eq!(answer, ("400".into(), r#"{"error": "function does not exist"}"#.into()));
}

#[tokio::test]
async fn bad_bodies_are_explained_in_json() {
    let service = start().await;
    for body in
        ["", "history", "[]", "{\"history\": [\"\\u0000\u{1}\"]}", "{\"history\": [\"\\\"\"]}", "{\"history\": 1}"]
    {
        let (status, answer) = service.post(body).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(status == "400" && answer["error"].as_str().unwrap().len() > 20, "{body} gives {status}, {answer}");
    }
}

#[tokio::test]
async fn other_types_methods_and_paths_are_refused() {
    let service = start().await;
    let valid = post(r#"{"history": []}"#);
    for (request, status, message) in [
        (valid.replace("application/json", "text/plain"), 415, "the content type is `text/plain`: send JSON"),
        (valid.replace("content-type: application/json\r\n", ""), 415, "the content type is missing"),
        (valid.replace("POST", "PUT"), 405, "`PUT` is not allowed here: use `POST`"),
        (valid.replace("POST", "GET"), 405, "`GET` is not allowed here: use `POST`"),
        (valid.replace("/prediction", "/livez"), 405, "`POST` is not allowed here: use `GET`"),
        (valid.replace("/prediction", "/"), 404, "use `POST /prediction`"),
    ] {
        let answer = service.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request} gives {answer}");
        assert!(answer.contains(&format!(r#"{{"error": "{message}"#)) || answer.contains(message), "{answer}");
        assert_eq!(status == 405, answer.to_lowercase().contains("\r\nallow: "), "{answer}");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        assert!(service.ask(&valid.replace("application/json", kind)).await.starts_with("HTTP/1.1 200 "), "{kind}");
    }
    assert!(service.ask("garbage\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn the_service_says_that_it_lives() {
    let service = start().await;
    let answer = service.ask("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let service = start().await;
    // Announced, and never sent.
    let announced = post("").replace("content-length: 0", "content-length: 100000000");
    assert!(service.ask(&announced).await.starts_with("HTTP/1.1 413 "));
    // Sent without an announcement, and never ending.
    let mut stream = service.connect().await;
    let head = post("").replace("content-length: 0", "transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "a".repeat(1 << 16));
    for _ in 0..=MAX_BODY_BYTES >> 16 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let mut status = [0; 12];
    timeout(SOON, stream.read_exact(&mut status)).await.expect("no answer").unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn the_largest_history_is_answered() {
    let service = start().await;
    let start: jiff::Timestamp = "2023-01-23T13:04:03.123456789Z".parse().unwrap();
    let event = |at: usize| start + jiff::SignedDuration::from_millis((at * 1000 + at * at % 997) as i64);
    let history: Vec<String> = (0..limits::MAX_EVENTS)
        .map(|at| format!(r#""{}+00:00""#, format!("{:.9}", event(at)).trim_end_matches('Z')))
        .collect();
    let body = format!(r#"{{"history": [{}], "function": "Winter"}}"#, history.join(", "));
    assert!(body.len() < MAX_BODY_BYTES, "{}", body.len());
    let (status, answer) = timeout(SOON, service.post(&body)).await.unwrap();
    assert!(status == "200" && answer.contains("2023-01-23T14:"), "{answer}");
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let service = start().await;
    let mut slow = service.connect().await;
    slow.write_all(without_end(r#"{"history": []}"#).as_bytes()).await.unwrap();
    // Its beginning has been read once another request has been answered on this one thread.
    service.post("").await;
    tokio::time::pause();
    tokio::time::advance(BODY_TIME + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert!(rest(&mut slow).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let service = start().await;
    let mut slow = service.connect().await;
    slow.write_all(b"POST /prediction HTTP/1.1\r\n").await.unwrap();
    service.post("").await;
    tokio::time::pause();
    tokio::time::advance(HEADER_TIME + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert!(!rest(&mut slow).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let service = start().await;
    let answer = service.ask(&format!("GET /livez HTTP/1.1\r\nX: {}", "a".repeat(2 * MAX_HEADER_BYTES))).await;
    assert!(answer.contains(" 431 "), "{answer}");
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let service = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(service.connect().await);
    }
    assert_eq!(service.post(r#"{"history": []}"#).await.0, "200");
    // The oldest had to go.
    let closed =
        timeout(SOON, silent.swap_remove(0).read(&mut [0])).await.expect("the oldest connection is still open");
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_request_under_way_is_answered_after_the_end_was_asked_for() {
    let service = start().await;
    let mut idle = service.connect().await;
    let mut stream = service.connect().await;
    stream.write_all(without_end(r#"{"history": []}"#).as_bytes()).await.unwrap();
    service.post("").await;
    let Service { address, stop, task } = service;
    stop.send(()).unwrap();
    assert_eq!(timeout(SOON, idle.read(&mut [0])).await.expect("idle connections are closed").unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err(), "still accepting");
    stream.write_all(b"}").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    timeout(SOON, task).await.expect("the service does not end").unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off() {
    let service = start().await;
    let mut stream = service.connect().await;
    stream.write_all(b"POST /prediction HTTP/1.1\r\n").await.unwrap();
    service.post("").await;
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    service.stop.send(()).unwrap();
    service.task.await.unwrap();
    assert!((DRAIN_TIME..HEADER_TIME).contains(&before.elapsed()), "{:?}", before.elapsed());
}
