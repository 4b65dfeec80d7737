//! The guest's side of a request: the call, on the guest's thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{info_span, warn};
use wasm_operator_core::dispatch::Serve;
use wasm_operator_engine::{CallError, Instance, Limit, ServeLimits};

use super::pending::{End, Incoming, Left, Waiting};
use crate::guest::Guest;
use crate::guest_log::within;
use crate::host::Host;
use crate::pool::{Found, Pool};
use crate::reconcile::{await_echo, broken, keep, no_instance, woke};
use crate::revision::Active;
use crate::scheduler::Serving;

/// Time that a guest has to return after its answer, when nobody reads the body: most return at once.
const GRACE: Duration = Duration::from_secs(1);

/// Has the guest answer one request on this thread.
pub(crate) async fn serve(host: Arc<Host>, guest: Arc<Guest>, serve: Serve, waiting: Waiting, serving: Serving) {
    let Waiting { incoming, answer, end, left } = waiting;
    let span = info_span!("request", guest = &*guest.name, request_id = incoming.id, user = incoming.user);
    let run = async {
        let Incoming { request, deadline, response_bytes, body, .. } = incoming;
        let time = deadline.saturating_duration_since(Instant::now());
        // Being loaded anew, or removed in this moment.
        let Some(active) = guest.active() else {
            let _ = end.send(End::NoInstance);
            return serving.finish(false, Duration::ZERO);
        };
        let Some(pool) = active.pool() else {
            let _ = end.send(End::ServesNothing);
            return serving.finish(false, Duration::ZERO);
        };
        let began = Instant::now();
        let (mut instance, found) = match pool.acquire().await {
            Ok(instance) => instance,
            Err(error) => {
                no_instance(&host, &guest, &error);
                serving.finish(!error.is_stale(), Duration::ZERO);
                let _ = end.send(End::NoInstance);
                return;
            }
        };
        if found != Found::Instance {
            woke(&host, &guest, pool, serve.wake, found, began.elapsed());
        }
        let before = instance.cpu_time();
        let limits = ServeLimits { time, response_bytes };
        // None: the caller has left, and the instance is gone with its call.
        let result = tokio::select! {
            biased;
            result = instance.serve(request, limits, answer) => Some(result),
            () = given_up(left) => None,
        };
        drop(body);
        let cpu = instance.cpu_time().saturating_sub(before);
        let (how, is_broken) = conclude(&host, &guest, pool, result);
        keep_if_current(&host, &guest, &active, instance);
        host.workers.used(guest.id, cpu);
        await_echo(&host, &guest, &active.gateway);
        serving.finish(is_broken, cpu);
        // After that, so that whoever hears of a fault finds the guest held back. Nobody hears it if there was an answer.
        let _ = end.send(how);
    };
    within(span, run).await;
}

/// Resolves when the call is of no use to anybody any more.
async fn given_up(left: oneshot::Receiver<Left>) {
    match left.await {
        Ok(Left::Served) => std::future::pending().await,
        Ok(Left::Answered) => sleep(GRACE).await,
        Ok(Left::Early) | Err(_) => {}
    }
}

/// How the call ended, and whether the guest is to be held back.
fn conclude(host: &Host, guest: &Guest, pool: &Pool, result: Option<Result<(), CallError>>) -> (End, bool) {
    match result {
        Some(Ok(())) => (End::NoAnswer, false),
        Some(Err(CallError::ServesNothing)) => {
            pool.serves_nothing();
            (End::ServesNothing, false)
        }
        // A caller that reads slowly, or an API server that answers slowly, is no fault of the guest.
        Some(Err(CallError::Limit { limit: Limit::Serve, allowed, .. })) => {
            warn!(milliseconds = allowed, "the guest did not serve the request in time; the call is ended");
            host.metrics.trapped(&guest.name, Limit::Serve.label());
            (End::TooLate, false)
        }
        Some(Err(error)) => {
            broken(host, guest, &error);
            (End::Broken, true)
        }
        None => (End::TooLate, false),
    }
}

fn keep_if_current(host: &Host, guest: &Guest, active: &Arc<Active>, instance: Instance) {
    let is_current = guest.active().is_some_and(|current| Arc::ptr_eq(&current, active));
    if instance.is_alive()
        && is_current
        && let Some(pool) = active.pool()
    {
        keep(host, guest, pool, instance);
    }
}
