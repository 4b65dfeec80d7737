//! The answer to a watch, on a connection that was taken from hyper.
//!
//! It has no end, and a program waits for one on each kind that it watches. hyper keeps 8 KiB to read into and 8 KiB for heads for as
//! long as a connection lives and cannot do with less, which would be a quarter of what a hibernated program holds. What an answer
//! needs after its request is a head and chunks (RFC 9112, 7.1).

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::{Either, select};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::timeout;

/// How long a client has to close its side after the end.
const LINGER: Duration = Duration::from_secs(5);

/// Sends the answer until it ends or the client leaves. A body that breaks off has no last chunk, by which the client can
/// tell it from one that ended.
pub(super) async fn send<B>(mut stream: TcpStream, answer: Response<B>) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (reader, mut writer) = stream.split();
    let (parts, mut body) = answer.into_parts();
    writer.write_all(&head(&parts)).await?;
    let mut left = pin!(leaves(reader));
    loop {
        let frame = match select(body.frame(), left.as_mut()).await {
            Either::Left((Some(Ok(frame)), _)) => frame,
            Either::Left((None, _)) => break,
            Either::Left((Some(Err(_)), _)) | Either::Right(_) => return Ok(()),
        };
        // An empty chunk would be the last one. Watches have no trailers.
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            let size = format!("{:x}\r\n", data.len());
            writer.write_all_buf(&mut size.as_bytes().chain(data).chain(&b"\r\n"[..])).await?;
        }
    }
    writer.write_all(b"0\r\n\r\n").await?;
    writer.shutdown().await?;
    // The kernel throws away what the client has not read yet if something of the client's was not read (RFC 9112, 9.6).
    let _ = timeout(LINGER, left).await;
    Ok(())
}

fn head(answer: &http::response::Parts) -> Vec<u8> {
    let mut headers = answer.headers.clone();
    headers.remove(CONTENT_LENGTH);
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    // hyper, which could read another request, is gone.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let reason = answer.status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16()).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Resolves when the client closes its side. What it sends instead is of no interest: nothing of it will be answered.
async fn leaves(reader: ReadHalf<'_>) {
    let mut ignored = [0; 64];
    while reader.readable().await.is_ok() {
        match reader.try_read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
