//! One exchange over `wasi:http`, for the blocking and for the asynchronous client.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme, http_error_code,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use super::Error;

/// How much of a body is asked for at once: 64 KiB, what the host hands over at most.
const READ: u64 = 64 << 10;

/// A request under way whose body is being written. Fields are dropped in this order, children first.
pub(crate) struct Exchange {
    stream: OutputStream,
    body: OutgoingBody,
    answer: FutureIncomingResponse,
}

/// A request under way whose body was sent.
pub(crate) struct Sent(FutureIncomingResponse);

/// The body of an answer. The stream is dropped before the body that it belongs to.
pub(crate) struct Incoming {
    stream: InputStream,
    _body: IncomingBody,
}

/// Status, headers and body.
pub(crate) type Answer = (u16, Vec<(String, Vec<u8>)>, Incoming);

impl Exchange {
    pub(crate) fn start<'h>(
        method: &str,
        scheme: &str,
        authority: &str,
        path: &str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> Result<Self, Error> {
        let fields = Fields::new();
        for (name, value) in headers {
            fields.append(name, value).map_err(|_| Error::Invalid("header"))?;
        }
        let request = OutgoingRequest::new(fields);
        request.set_method(&to_method(method)).map_err(|()| Error::Invalid("method"))?;
        request.set_scheme(Some(&to_scheme(scheme))).map_err(|()| Error::Invalid("scheme"))?;
        request.set_authority(Some(authority)).map_err(|()| Error::Invalid("authority"))?;
        request.set_path_with_query(Some(path)).map_err(|()| Error::Invalid("path"))?;
        let body = request.body().map_err(|()| Error::Invalid("body"))?;
        let stream = body.write().map_err(|()| Error::Invalid("body"))?;
        let answer = outgoing_handler::handle(request, None).map_err(failed)?;
        Ok(Self { stream, body, answer })
    }

    /// Writes what fits and returns the rest.
    fn write<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        match self.stream.check_write() {
            Ok(0) => bytes,
            Ok(permit) => {
                let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(permit).unwrap_or(usize::MAX)));
                if self.stream.write(now).is_ok() { later } else { &[] }
            }
            // Nobody reads the body any more: the answer, or its error, tells why.
            Err(_) => &[],
        }
    }

    pub(crate) fn write_blocking(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let rest = self.write(bytes);
            if rest.len() == bytes.len() {
                self.stream.subscribe().block();
            }
            bytes = rest;
        }
        Ok(())
    }

    #[cfg(feature = "kube")]
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let rest = self.write(bytes);
            if rest.len() == bytes.len() {
                crate::reactor::Registration::new(self.stream.subscribe()).wait().await;
            }
            bytes = rest;
        }
    }

    pub(crate) fn finish(self) -> Result<Sent, Error> {
        drop(self.stream);
        // An error here repeats what the answer says.
        let _ = OutgoingBody::finish(self.body, None);
        Ok(Sent(self.answer))
    }
}

impl Sent {
    fn take(&self) -> Result<Option<Answer>, Error> {
        let Some(result) = self.0.get() else { return Ok(None) };
        let response: IncomingResponse =
            result.map_err(|()| Error::Failed("answer taken twice".to_owned()))?.map_err(failed)?;
        let headers = response.headers();
        let entries = headers.entries();
        drop(headers);
        let body = response.consume().map_err(|()| Error::Interrupted("body taken twice".to_owned()))?;
        let stream = body.stream().map_err(|()| Error::Interrupted("stream taken twice".to_owned()))?;
        Ok(Some((response.status(), entries, Incoming { stream, _body: body })))
    }

    pub(crate) fn wait_blocking(self) -> Result<Answer, Error> {
        loop {
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
            self.0.subscribe().block();
        }
    }

    #[cfg(feature = "kube")]
    pub(crate) async fn wait(self) -> Result<Answer, Error> {
        loop {
            crate::reactor::Registration::new(self.0.subscribe()).wait().await;
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
        }
    }
}

impl Incoming {
    /// What is there now: `None` at the end, empty when nothing has arrived yet.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        self.stream.read(READ).map_or_else(end, |bytes| Ok(Some(bytes)))
    }

    pub(crate) fn read_blocking(&self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            match self.read()? {
                Some(bytes) if bytes.is_empty() => self.stream.subscribe().block(),
                other => return Ok(other),
            }
        }
    }

    #[cfg(feature = "kube")]
    pub(crate) fn readable(&self) -> crate::reactor::Registration {
        crate::reactor::Registration::new(self.stream.subscribe())
    }
}

fn end(error: StreamError) -> Result<Option<Vec<u8>>, Error> {
    match error {
        StreamError::Closed => Ok(None),
        StreamError::LastOperationFailed(error) => Err(Error::Interrupted(
            http_error_code(&error).map_or_else(|| error.to_debug_string(), |code| format!("{code:?}")),
        )),
    }
}

fn failed(code: ErrorCode) -> Error {
    Error::Failed(format!("{code:?}"))
}

fn to_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    }
}

fn to_scheme(scheme: &str) -> Scheme {
    match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => Scheme::Other(other.to_owned()),
    }
}
