//! One reconcile: from a key to an instance's answer, and back to the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, info_span, warn};
use wasm_operator_cluster::gateway::GuestGateway;
use wasm_operator_core::dispatch::{Completion, Job, WakeReason};
use wasm_operator_core::reconcile::{Failure, Outcome, Request};
use wasm_operator_engine::{CallError, Instance};

use crate::admin::metrics::Reconciled;
use crate::guest::Guest;
use crate::guest_log::within;
use crate::host::Host;
use crate::pool::{Found, Pool, PoolError};
use crate::revision::Active;
use crate::scheduler::{Preparation, Run};
use crate::waiting::spawn_when_woken;

/// Runs one job on this thread.
pub(crate) async fn reconcile(host: Arc<Host>, guest: Arc<Guest>, job: Job, run: Run) {
    let id = format!("{:016x}", host.next_reconcile());
    let span = info_span!(
        "reconcile",
        guest = &*guest.name,
        controller = &*job.key.controller,
        key = %job.key.object,
        reconcile_id = id,
    );
    let run = async {
        // Nothing to run it with: the guest is being loaded anew, and its keys were kept or dropped with that.
        let Some(active) = guest.active() else { return run.finish(Completion::Retry, Duration::ZERO) };
        let started = Instant::now();
        host.metrics.started(&guest.name, &job, host.scheduler.now());
        let (completion, cpu) = call(&host, &guest, &active, &job, id).await;
        host.metrics.finished(&guest.name, completion, started.elapsed());
        host.workers.used(job.guest, cpu);
        await_echo(&host, &guest, &active.gateway);
        run.finish(completion.into(), cpu);
        if host.forecasts.is_some() {
            ask_for_forecast(&host, &guest);
        }
    };
    within(span, run).await;
}

async fn call(
    host: &Arc<Host>,
    guest: &Arc<Guest>,
    active: &Arc<Active>,
    job: &Job,
    id: String,
) -> (Reconciled, Duration) {
    let (Some(watching), Some(pool)) = (active.controllers.get(&job.key.controller), active.pool()) else {
        return (Reconciled::Success, Duration::ZERO);
    };
    let primary = &watching.primary.scope().resource;
    active.gateway.own_writes_seen(&primary.group, &primary.plural, &job.key.object).await;
    let request = Request {
        controller: job.key.controller.clone(),
        object: job.key.object.clone(),
        content: watching.primary.get(&job.key.object).map(|object| object.json.clone()),
        deleted: job.deleted.clone(),
        attempt: job.attempt,
        cause: job.cause,
        id,
        traceparent: job.traceparent.clone(),
    };
    let began = Instant::now();
    let (mut instance, found) = match pool.acquire().await {
        Ok(instance) => instance,
        Err(error) => return (no_instance(host, guest, &error), Duration::ZERO),
    };
    if found != Found::Instance {
        woke(host, guest, pool, job.wake, found, began.elapsed());
    }
    let before = instance.cpu_time();
    let answer = instance.reconcile(&request).await;
    let cpu = instance.cpu_time().saturating_sub(before);
    if answer.is_ok() {
        host.scheduler.tell(|dispatcher, _| dispatcher.called(guest.id, found != Found::Instance, cpu));
    }
    let completion = match answer {
        Ok(Ok(Outcome::Done)) => Reconciled::Success,
        Ok(Ok(Outcome::RequeueAfter(after))) => Reconciled::RequeueAfter(after),
        Ok(Err(Failure::Retryable { message, after })) => {
            warn!(error = message, attempt = job.attempt, ?after, "the reconcile failed and is tried again");
            after.map_or(Reconciled::Retry, Reconciled::RetryAfter)
        }
        Ok(Err(Failure::Terminal(message))) => {
            error!(error = message, "the reconcile failed for good; it waits for a change of the object");
            Reconciled::Terminal
        }
        Err(error) => broken(host, guest, &error),
    };
    let is_current = guest.active().is_some_and(|current| Arc::ptr_eq(&current, active));
    if instance.is_alive() && is_current {
        keep(host, guest, pool, instance);
    }
    (completion, cpu)
}

/// Makes the guest an instance ahead of its work, on this thread.
pub(crate) async fn prepare(host: Arc<Host>, guest: Arc<Guest>, preparation: Preparation) {
    let span = info_span!("prepare", guest = &*guest.name);
    let prepare = async {
        // Being loaded anew: there is nothing to make ready, and nothing wrong.
        let active = guest.active();
        let Some(pool) = active.as_ref().and_then(|active| active.pool()) else { return preparation.succeed() };
        let began = Instant::now();
        match pool.acquire().await {
            Ok((mut instance, found)) => {
                woke(&host, &guest, pool, Some(WakeReason::Predicted), found, began.elapsed());
                if found != Found::Instance
                    && let Err(error) = instance.warm_up().await
                {
                    // Its work will show what is wrong, if there is any.
                    debug!(%error, "the guest could not be warmed up");
                }
                if instance.is_alive() {
                    keep(&host, &guest, pool, instance);
                }
                preparation.succeed();
            }
            Err(error) => {
                no_instance(&host, &guest, &error);
            }
        }
    };
    within(span, prepare).await;
}

pub(crate) fn woke(host: &Host, guest: &Guest, pool: &Pool, reason: Option<WakeReason>, found: Found, took: Duration) {
    host.metrics.woke(&guest.name, reason, found, took);
    host.scheduler.tell(|dispatcher, _| {
        dispatcher.woke(guest.id, took);
        dispatcher.set_bytes(guest.id, pool.component_bytes());
    });
}

/// Keeps the instance for the next call.
pub(crate) fn keep(host: &Host, guest: &Guest, pool: &Pool, instance: Instance) {
    pool.release(instance, guest.concurrency());
    host.metrics.memory(&guest.name, pool.instance_bytes());
    let bytes = pool.private_bytes();
    host.scheduler.tell(|dispatcher, _| dispatcher.set_instance_bytes(guest.id, bytes));
}

/// The guest trapped or broke a limit: it is reported and held back for a while.
pub(crate) fn broken(host: &Host, guest: &Guest, error: &CallError) -> Reconciled {
    error!(kind = error.kind(), %error, "the guest broke off and is started again after a pause");
    host.metrics.trapped(&guest.name, error.kind());
    // The error's text may quote the guest, which must not speak through the host's Events.
    let note = format!("guest `{}` broke off and is started again after a pause: {}", guest.name, error.summary());
    host.events.warn("GuestBroken", &guest.name, &note);
    Reconciled::Broken
}

pub(crate) fn no_instance(host: &Host, guest: &Guest, error: &PoolError) -> Reconciled {
    match error {
        PoolError::Load(error) if error.is_stale() => {
            info!(%error, "the compiled component is made anew");
            host.scheduler.tell(|dispatcher, now| dispatcher.reload(now, guest.id));
            Reconciled::Retry
        }
        PoolError::Load(error) => {
            error!(%error, "the component cannot be loaded");
            host.metrics.trapped(&guest.name, "load");
            host.events.warn("GuestBroken", &guest.name, &format!("guest `{}` cannot be loaded", guest.name));
            Reconciled::Broken
        }
        PoolError::Instantiate(error) => broken(host, guest, error),
    }
}

/// Asks the prediction service, if the guest has become idle.
pub(crate) fn ask_for_forecast(host: &Arc<Host>, guest: &Arc<Guest>) {
    let (asking, guest) = (host.clone(), guest.clone());
    host.runtime.spawn(async move {
        if let Some(forecasts) = &asking.forecasts {
            forecasts.ask(guest.id, &guest.name).await;
        }
    });
}

/// Keeps the guest awake while the event of its own write is on the way: it may have work again at once.
pub(crate) fn await_echo(host: &Arc<Host>, guest: &Arc<Guest>, gateway: &Arc<GuestGateway>) {
    // One waiter is enough, however often the guest pauses meanwhile.
    if !gateway.echo_pending() || !guest.begins_to_await_echo() {
        return;
    }
    host.scheduler.tell(|dispatcher, now| dispatcher.echo_pending(now, guest.id, true));
    let settled = gateway.echo_settled();
    let (waiting, guest, gateway) = (host.clone(), guest.clone(), gateway.clone());
    spawn_when_woken(&host.runtime, async move {
        settled.await;
        guest.has_echo();
        waiting.scheduler.tell(|dispatcher, now| dispatcher.echo_pending(now, guest.id, false));
        // Who wrote in the last moment has found a waiter.
        await_echo(&waiting, &guest, &gateway);
    });
}
