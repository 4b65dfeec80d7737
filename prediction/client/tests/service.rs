//! The client against the real service and against hostile ones, on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test, its helpers included")]

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wasm_operator_prediction::server::serve;
use wasm_operator_prediction_client::{Client, MAX_HISTORY, MAX_IN_FLIGHT, Refused};

/// Never reached where a test does not wait for it: the machine may be busy.
const AMPLE: Duration = Duration::from_secs(10);

fn client(address: SocketAddr, function: Option<&str>) -> Client {
    Client::new(&format!("http://{address}"), function, AMPLE).unwrap()
}

fn history(gaps: &[i64]) -> Vec<Timestamp> {
    let start: Timestamp = "2023-01-23T13:04:03.182471956Z".parse().unwrap();
    let mut history = vec![start];
    for gap in gaps {
        history.push(*history.last().unwrap() + SignedDuration::from_millis(*gap));
    }
    history
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads the request, so that closing the connection resets nothing, and hands the connection over.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"]}") {
        request.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test]
async fn the_services_forecast_is_the_time_from_the_last_event() {
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, 1, std::future::pending()));
    for function in [None, Some("SES"), Some("Winter"), Some("histogram")] {
        let client = client(address, function);
        assert_eq!(client.predict("ring", &history(&[])).await, Ok(Duration::from_secs(3)));
        assert_eq!(
            client.predict("ring", &history(&[5000, 5000, 5000])).await,
            Ok(Duration::from_secs(5)),
            "{function:?}"
        );
    }
    let alternating: Vec<i64> = (0..40).map(|at| [5000, 60_000][at % 2]).collect();
    let ahead = client(address, Some("Winter")).predict("ring", &history(&alternating)).await.unwrap();
    assert!((4..6).contains(&ahead.as_secs()), "{ahead:?}");
}

#[tokio::test]
async fn a_long_history_is_sent_in_part() {
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, 1, std::future::pending()));
    // More than the service takes; the mean of the whole is not five seconds.
    let mut gaps = vec![60_000; 10_000];
    gaps.extend([5000; MAX_HISTORY]);
    assert_eq!(client(address, None).predict("ring", &history(&gaps)).await, Ok(Duration::from_secs(5)));
}

#[tokio::test]
async fn what_the_service_refuses_is_refused() {
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, 1, std::future::pending()));
    let unknown = client(address, Some("Prophet"));
    assert_eq!(unknown.predict("ring", &history(&[5000])).await, Err(Refused::Status));
    let mut descending = history(&[5000]);
    descending.reverse();
    assert_eq!(client(address, None).predict("ring", &descending).await, Err(Refused::Status));
}

#[tokio::test]
async fn without_a_history_nothing_is_asked() {
    let (_listener, address) = listen().await;
    assert_eq!(client(address, None).predict("ring", &[]).await, Err(Refused::NoHistory));
}

#[tokio::test]
async fn a_dead_service_is_unreachable() {
    let (listener, address) = listen().await;
    drop(listener);
    assert_eq!(client(address, None).predict("ring", &history(&[])).await, Err(Refused::Unreachable));
}

#[tokio::test]
async fn a_name_without_an_address_is_unresolved() {
    let client = Client::new("http://service.invalid", None, AMPLE).unwrap();
    assert_eq!(client.predict("ring", &history(&[])).await, Err(Refused::Unresolved));
}

#[tokio::test]
async fn a_name_is_resolved() {
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, 1, std::future::pending()));
    let client = Client::new(&format!("http://localhost:{}", address.port()), None, AMPLE).unwrap();
    assert_eq!(client.predict("ring", &history(&[])).await, Ok(Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_accepts_and_says_nothing_is_silent() {
    let (_listener, address) = listen().await; // the kernel accepts
    let client = Client::new(&format!("http://{address}"), None, Duration::from_millis(100)).unwrap();
    let before = tokio::time::Instant::now();
    let refused = client.predict("ring", &history(&[])).await.unwrap_err();
    // A paused clock may also pass the timeout before the connection is seen.
    assert!(matches!(refused, Refused::Silent | Refused::Unreachable), "{refused:?}");
    assert!(before.elapsed() < Duration::from_millis(110));
}

#[tokio::test]
async fn wrong_answers_are_told_apart() {
    for (answer, reason) in [
        ("HTTP/1.1 200 OK\r\n\r\n{\"prediction\": NaN}", Refused::NotJson),
        ("HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"NaN\"}", Refused::NotATime),
        ("HTTP/1.1 200 OK\r\n\r\n{\"error\": \"function does not exist\"}", Refused::NoPrediction),
        ("HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"2023-01-23T13:04:03Z\"}", Refused::Past),
        ("HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"2123-01-23T13:04:03Z\"}", Refused::FarFuture),
        ("HTTP/1.1 500 Internal Server Error\r\n\r\n", Refused::Status),
        ("garbage\r\n\r\n", Refused::Broken),
    ] {
        let (listener, address) = listen().await;
        tokio::spawn(async move { accept(&listener).await.write_all(answer.as_bytes()).await });
        assert_eq!(client(address, None).predict("ring", &history(&[])).await, Err(reason), "{answer}");
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_read() {
    const LARGE: usize = 100 << 20;
    let (listener, address) = listen().await;
    let (report, written) = oneshot::channel();
    tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let mut count = 0;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6400000\r\n").await;
        while count < LARGE && stream.write_all(&[b' '; 1 << 16]).await.is_ok() {
            count += 1 << 16;
        }
        report.send(count).unwrap();
    });
    assert_eq!(client(address, None).predict("ring", &history(&[])).await, Err(Refused::TooLarge));
    // What the kernel had taken before the client hung up.
    assert!(written.await.unwrap() < LARGE / 2);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_not_read_for_long() {
    let (listener, address) = listen().await;
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"").await;
        while stream.write_all(&[b'9'; 512]).await.is_ok() {}
        ended.send(()).unwrap();
    });
    assert_eq!(client(address, None).predict("ring", &history(&[])).await, Err(Refused::TooLarge));
    end.await.unwrap();
}

#[tokio::test]
async fn requests_under_way_are_bounded_by_guest_and_by_host() {
    let (listener, address) = listen().await;
    let (connected, mut connections) = mpsc::channel(MAX_IN_FLIGHT);
    tokio::spawn(async move {
        loop {
            connected.send(accept(&listener).await).await.unwrap();
        }
    });
    let client = client(address, None);
    let ask = |guest: String| {
        let client = client.clone();
        tokio::spawn(async move { client.predict(&guest, &history(&[])).await })
    };
    let mut asked = Vec::new();
    let mut open = Vec::new();
    for at in 0..MAX_IN_FLIGHT {
        asked.push(ask(format!("ring-{at}")));
        open.push(connections.recv().await.unwrap());
    }
    assert_eq!(client.predict("ring-0", &history(&[])).await, Err(Refused::GuestBusy));
    assert_eq!(client.predict("ring-x", &history(&[])).await, Err(Refused::HostBusy));
    // Whoever is answered, hung up on, or dropped makes room.
    open[0].write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"2023-01-23T13:04:04.182471956Z\"}").await.unwrap();
    drop(open);
    let dropped = asked.pop().unwrap();
    dropped.abort();
    assert!(dropped.await.is_err());
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap());
    }
    assert_eq!(answers[0], Ok(Duration::from_secs(1)));
    assert!(answers[1..].iter().all(|answer| *answer == Err(Refused::Broken)), "{answers:?}");
    for at in 0..MAX_IN_FLIGHT {
        asked_again(ask(format!("ring-{at}")), &mut connections).await;
    }
}

/// Gets through to the service, and is hung up on.
async fn asked_again(
    asked: tokio::task::JoinHandle<Result<Duration, Refused>>,
    connections: &mut mpsc::Receiver<TcpStream>,
) {
    drop(timeout(AMPLE, connections.recv()).await.expect("no place is given back").unwrap());
    assert_eq!(asked.await.unwrap(), Err(Refused::Broken));
}
