//! `kube::Client` over `wasi:http`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kube::client::Body;
use tower::Service;

use crate::http::Error;
use crate::runtime;

thread_local! {
    static CLIENT: kube::Client = runtime::enter(|| kube::Client::new(WasiHttp, "default"));
}

/// The client of this instance. Its requests go to the host's gateway, which checks them against the guest's permissions
/// and sends them with the guest's own identity. Several requests may be under way at once.
///
/// Nothing is retried on the way: the host tries again where that is safe, and reports the rest.
#[must_use]
pub fn client() -> kube::Client {
    CLIENT.with(Clone::clone)
}

/// Sends requests over `wasi:http`.
#[derive(Debug, Clone, Copy)]
struct WasiHttp;

impl Service<http::Request<Body>> for WasiHttp {
    type Response = http::Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(send(request))
    }
}

#[cfg(target_os = "wasi")]
use component::{ResponseBody, send};
#[cfg(target_os = "wasi")]
mod component {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use bytes::Bytes;
    use http_body::Frame;
    use kube::client::Body;

    use crate::http::wire::{Exchange, Incoming};
    use crate::http::{Error, KUBERNETES};
    use crate::reactor::Registration;

    /// The body of an answer, part by part as it arrives. The registration is dropped before the stream.
    pub(super) struct ResponseBody {
        waiting: Option<Registration>,
        incoming: Incoming,
    }

    pub(super) async fn send(request: http::Request<Body>) -> Result<http::Response<ResponseBody>, Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(|_| Error::Invalid("body"))?;
        let exchange = Exchange::start(
            parts.method.as_str(),
            parts.uri.scheme_str().unwrap_or("https"),
            parts.uri.authority().map_or(KUBERNETES, http::uri::Authority::as_str),
            parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
        )?;
        exchange.write_all(&body).await;
        let (status, headers, incoming) = exchange.finish()?.wait().await?;
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response
            .body(ResponseBody { waiting: None, incoming })
            .map_err(|error| Error::Failed(format!("the answer's head cannot be read: {error}")))
    }

    impl http_body::Body for ResponseBody {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            loop {
                if let Some(waiting) = &self.waiting {
                    ready!(waiting.poll(context));
                }
                match self.incoming.read() {
                    Ok(Some(bytes)) if bytes.is_empty() => {
                        if self.waiting.is_none() {
                            self.waiting = Some(self.incoming.readable());
                        }
                    }
                    Ok(Some(bytes)) => {
                        self.waiting = None;
                        return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
                    }
                    Ok(None) => {
                        self.waiting = None;
                        return Poll::Ready(None);
                    }
                    Err(error) => {
                        self.waiting = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

#[cfg(not(target_os = "wasi"))]
type ResponseBody = Body;
#[cfg(not(target_os = "wasi"))]
async fn send(_: http::Request<Body>) -> Result<http::Response<ResponseBody>, Error> {
    Err(Error::NoHost)
}
