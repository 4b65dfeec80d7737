//! The one place where engine and cluster meet: a guest's outgoing HTTP goes to its gateway.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use wasm_operator_cluster::gateway::{BodyError, GuestGateway, SendError};
use wasm_operator_core::dispatch::GuestId;
use wasm_operator_engine::{HttpError, OutgoingHttp, ResponseBody, Timeouts};

use crate::scheduler::Scheduler;

/// Sends a guest's requests through its gateway, and tells the scheduler of its writes: others may follow them.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) gateway: Arc<GuestGateway>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) guest: GuestId,
}

impl OutgoingHttp for Outgoing {
    fn send(
        &self,
        request: http::Request<Bytes>,
        timeouts: Timeouts,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, HttpError>> {
        if !request.method().is_safe() {
            self.scheduler.tell(|dispatcher, now| dispatcher.wrote(now, self.guest));
        }
        let answer = self.gateway.send(request, timeouts.total);
        async move {
            let answer = answer.await.map_err(send_error)?;
            Ok(answer.map(|body| body.map_err(body_error).boxed_unsync()))
        }
        .boxed()
    }
}

fn send_error(error: SendError) -> HttpError {
    match error {
        SendError::Denied { .. } => HttpError::Denied,
        SendError::DeniedAddress { .. } => HttpError::AddressProhibited,
        SendError::Malformed(_) => HttpError::UriInvalid,
        SendError::RequestTooLarge { limit } => HttpError::RequestBodySize(limit),
        SendError::TooManyInFlight { .. } => HttpError::TooManyRequests,
        SendError::Dns(name) => HttpError::Dns(name),
        SendError::Connect { .. } => HttpError::Unavailable,
        SendError::Tls { .. } => HttpError::Tls,
        SendError::Broken { .. } => HttpError::ConnectionTerminated,
        SendError::Timeout(_) => HttpError::ResponseTimeout,
        SendError::Closed => HttpError::Internal("the host is shutting down".to_owned()),
    }
}

fn body_error(error: BodyError) -> HttpError {
    match error {
        BodyError::TooLarge { limit } => HttpError::ResponseBodySize(limit),
        BodyError::Timeout => HttpError::ResponseTimeout,
        BodyError::Broken(_) => HttpError::ResponseIncomplete,
    }
}
