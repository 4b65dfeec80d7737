//! One request and its answer on a connection, step by step, so that a timeout can say which step it was.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::refused::Refused;
use crate::url::Target;

/// Bytes of an answer. A prediction has about fifty.
pub const MAX_ANSWER_BYTES: usize = 4 << 10;
/// Bytes of an answer's head, the least that hyper takes.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 32;

/// Where an exchange is: what a timeout then means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step(pub(crate) Refused);

/// Sends `body` and returns the answer's. The connection ends with the future.
pub(crate) async fn exchange<S>(stream: S, target: &Target, body: Bytes, step: &mut Step) -> Result<Bytes, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    step.0 = Refused::Silent;
    let request = Request::post(target.path.clone())
        .header(header::HOST, &*target.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|_| Refused::Broken)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Refused::Broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|_| Refused::Broken)?;
        step.0 = Refused::Slow;
        if answer.status() != StatusCode::OK {
            return Err(Refused::Status);
        }
        if answer.body().size_hint().lower() > MAX_ANSWER_BYTES as u64 {
            return Err(Refused::TooLarge);
        }
        match Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Refused::TooLarge),
            Err(_) => Err(Refused::Broken),
        }
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven here and not by a task of its own: it cannot outlive the request.
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        _ = connection => answer.await, // all that came is in the answer's hands
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    /// What the client makes of a service that reads the request and sends this, and then nothing more.
    async fn against(sent: impl Into<Vec<u8>>, then_closes: bool) -> Result<Bytes, Refused> {
        let (near, mut far) = duplex(1 << 16);
        let sent = sent.into();
        let service = async move {
            let request = read_request(&mut far).await;
            // Ends early when the client has heard enough.
            let _ = far.write_all(&sent).await;
            if !then_closes {
                std::future::pending::<()>().await;
            }
            request
        };
        tokio::spawn(service);
        ask(near).await
    }

    async fn ask(stream: DuplexStream) -> Result<Bytes, Refused> {
        let target = Target::parse("http://predict.svc:5000").unwrap();
        let mut step = Step(Refused::Unreachable);
        let body = Bytes::from_static(b"{}");
        match timeout(TIMEOUT, exchange(stream, &target, body, &mut step)).await {
            Ok(answer) => answer,
            Err(_) => Err(step.0),
        }
    }

    async fn read_request(stream: &mut DuplexStream) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n{}") {
            request.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(request).unwrap()
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_is_the_services() {
        let (near, mut far) = duplex(1 << 16);
        let asked = tokio::spawn(ask(near));
        let request = read_request(&mut far).await;
        let expected = "POST /prediction HTTP/1.1\r\nhost: predict.svc:5000\r\ncontent-type: application/json\r\n\
                        connection: close\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(request, expected);
        far.write_all(ok("answer").as_bytes()).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), "answer");
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the connection ends with the exchange");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_end_by_length_by_chunks_or_by_the_connection() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nans\r\n3\r\nwer\r\n0\r\n\r\n";
        for (sent, closes) in
            [(ok("answer"), false), (chunked.to_owned(), false), ("HTTP/1.1 200 OK\r\n\r\nanswer".to_owned(), true)]
        {
            assert_eq!(against(sent, closes).await.unwrap(), "answer");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_how_far_the_answer_came() {
        for (sent, reason) in [
            ("", Refused::Silent),
            ("HTTP/1.1 200 OK\r\ncontent-le", Refused::Silent),
            ("HTTP/1.1 100 Continue\r\n\r\n", Refused::Silent),
            ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", Refused::Slow),
            ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"predic", Refused::Slow),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n", Refused::Slow),
            ("HTTP/1.1 200 OK\r\n\r\n{\"prediction\": \"2023-01-23T13:04:08Z\"}", Refused::Slow),
        ] {
            assert_eq!(against(sent, false).await, Err(reason), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_now_and_then_does_not_hold_the_client() {
        let (near, mut far) = duplex(1 << 16);
        tokio::spawn(async move {
            read_request(&mut far).await;
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n").await.unwrap();
            while far.write_all(b" ").await.is_ok() {
                tokio::time::sleep(TIMEOUT / 10).await;
            }
        });
        let before = tokio::time::Instant::now();
        assert_eq!(ask(near).await, Err(Refused::Slow));
        assert_eq!(before.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn other_answers_than_200_are_refused_without_their_bodies() {
        for status in
            ["201 Created", "204 No Content", "302 Found\r\nlocation: /", "400 Bad Request", "503 Busy", "999 x"]
        {
            let sent = format!("HTTP/1.1 {status}\r\ncontent-length: 100000000\r\n\r\n");
            assert_eq!(against(sent, false).await, Err(Refused::Status), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_http_is_broken() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(2 * MAX_HEAD_BYTES));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(2 * MAX_HEADERS));
        for sent in ["garbage\r\n\r\n", "SSH-2.0-OpenSSH\r\n", "\0\0\0\0\0\0\0\0\0", &endless, &many] {
            assert_eq!(against(sent, false).await, Err(Refused::Broken), "{:?}", sent.get(..20));
        }
        for sent in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
            assert_eq!(against(sent, true).await, Err(Refused::Broken), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_are_refused_as_soon_as_they_are_known_to_be() {
        let announced = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
        assert_eq!(against(announced, false).await, Err(Refused::TooLarge));
        let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1001\r\n{}\r\n", "a".repeat(4097));
        assert_eq!(against(chunked, false).await, Err(Refused::TooLarge));
        assert_eq!(against(ok(&"a".repeat(4096)), false).await.unwrap().len(), MAX_ANSWER_BYTES);
    }
}
