//! A program's requests on their way, as far as they tell whether it has something to do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use wasm_operator_engine::{HttpError, OutgoingHttp, ResponseBody, Timeouts};

use super::activity::{Activity, UnderWay};
use crate::outgoing::Outgoing;

/// What a program sends over `wasi:http`, beside its endpoint.
pub(super) struct Observed {
    pub(super) http: Arc<Outgoing>,
    pub(super) activity: Arc<Activity>,
}

impl OutgoingHttp for Observed {
    fn send(
        &self,
        request: http::Request<Bytes>,
        timeouts: Timeouts,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, HttpError>> {
        let (activity, under_way) = (self.activity.clone(), self.activity.request());
        let answer = self.http.send(request, timeouts);
        async move {
            let answer = answer.await;
            activity.delivers();
            Ok(answer?.map(|body| Delivered::new(body, activity, Some((under_way, None))).boxed_unsync()))
        }
        .boxed()
    }
}

/// The body of an answer, which is noted as it goes out.
pub(super) struct Delivered {
    body: ResponseBody,
    activity: Arc<Activity>,
    /// What the request holds until it is answered as a whole. None for a watch, whose answer never is.
    _held: Option<Held>,
}

/// That it is under way, and its place among those at the endpoint.
type Held = (UnderWay, Option<OwnedSemaphorePermit>);

impl Delivered {
    pub(super) fn new(body: ResponseBody, activity: Arc<Activity>, held: Option<Held>) -> Self {
        Self { body, activity, _held: held }
    }
}

impl Body for Delivered {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.activity.delivers();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
