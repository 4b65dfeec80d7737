use bytes::BytesMut;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http_body::Frame;
use http_body_util::{Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

type Piece = Result<Frame<Bytes>, io::Error>;

/// An answer that goes out, and what it is made of.
struct Sending {
    pieces: UnboundedSender<Piece>,
    done: JoinHandle<io::Result<()>>,
}

impl Sending {
    fn piece(&self, data: impl Into<Bytes>) {
        self.pieces.unbounded_send(Ok(Frame::data(data.into()))).unwrap();
    }
}

/// Answers the one request that comes over the connection that this returns.
async fn answering() -> (TcpStream, JoinHandle<Sending>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sending = tokio::spawn(async move {
        let mut request = BytesMut::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(server.read_buf(&mut request).await.unwrap(), 0);
        }
        let (pieces, body) = unbounded();
        let answer = Response::builder()
            .header("content-type", "application/json")
            .header("content-length", "3")
            .body(StreamBody::new(body))
            .unwrap();
        Sending { pieces, done: tokio::spawn(send(server, answer)) }
    });
    (client, sending)
}

/// The answer as hyper reads it. Dropping the task closes the connection.
async fn asked() -> (Response<Incoming>, JoinHandle<()>, Sending) {
    let (client, sending) = answering().await;
    let (mut sender, connection) = handshake::<_, Empty<Bytes>>(TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(async move { _ = connection.await });
    let request = http::Request::builder().uri("/things?watch=1").header("host", "here").body(Empty::new()).unwrap();
    let (answer, sending) = tokio::join!(sender.send_request(request), sending);
    (answer.unwrap(), connection, sending.unwrap())
}

async fn next(body: &mut Incoming) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_client_gets_each_piece_when_it_is_there_and_then_the_end() {
    let (mut answer, connection, sending) = asked().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers().get("content-length"), None);
    for piece in ["one", "another\r\n0\r\n\r\n", "x"] {
        sending.piece(piece);
        assert_eq!(next(answer.body_mut()).await, piece);
    }
    sending.piece("");
    sending.piece("after an empty one");
    assert_eq!(next(answer.body_mut()).await, "after an empty one");
    drop(sending.pieces);
    assert!(answer.body_mut().frame().await.is_none());
    connection.abort();
    sending.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_can_tell_an_answer_that_broke_off() {
    let (mut answer, _connection, sending) = asked().await;
    sending.piece("one");
    assert_eq!(next(answer.body_mut()).await, "one");
    sending.pieces.unbounded_send(Err(io::ErrorKind::TimedOut.into())).unwrap();
    assert!(answer.body_mut().frame().await.unwrap().is_err());
    sending.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_ends_an_answer_to_which_nothing_is_added() {
    let (answer, connection, sending) = asked().await;
    drop(answer);
    connection.abort();
    sending.done.await.unwrap().unwrap();
    assert!(sending.pieces.is_closed());
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    const PIECE: usize = 300_000;
    const PIECES: usize = 40;
    let (mut answer, connection, sending) = asked().await;
    for number in 0..PIECES {
        sending.piece(vec![u8::try_from(number).unwrap(); PIECE]);
    }
    drop(sending.pieces);
    // By then the kernel's buffers are full.
    tokio::task::yield_now().await;
    let body = answer.body_mut().collect().await.unwrap().to_bytes();
    let expected: Vec<u8> = (0..PIECES).flat_map(|number| vec![u8::try_from(number).unwrap(); PIECE]).collect();
    assert!(body == expected);
    connection.abort();
    sending.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_behind_a_watch_is_not_answered() {
    let (mut client, sending) = answering().await;
    client.write_all(b"GET /things?watch=1 HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let sending = sending.await.unwrap();
    client.write_all(&b"GET / HTTP/1.1\r\nhost: here\r\n\r\n".repeat(100)).await.unwrap();
    sending.piece("one");
    drop(sending.pieces);
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n3\r\none\r\n0\r\n\r\n"), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    drop(client);
    sending.done.await.unwrap().unwrap();
}
