//! One run of a program, on its thread.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use tokio::sync::oneshot;
use tracing::{error, info, info_span};
use wasm_operator_core::dispatch::{GuestId, ProgramRun};

use super::endpoint::Endpoint;
use super::observed::Observed;
use super::{Own, Parts};
use crate::guest::Guest;
use crate::guest_log::within;
use crate::host::Host;
use crate::reconcile::broken;

/// The environment variables that tell a program where its Kubernetes API is. The SDK knows the same names.
const SERVICE_HOST: &str = "WASM_OPERATOR_SERVICE_HOST";
const SERVICE_PORT: &str = "WASM_OPERATOR_SERVICE_PORT";
const SERVICE_TOKEN: &str = "WASM_OPERATOR_SERVICE_TOKEN";

/// Tells the scheduler of an end that nobody asked for, also when it is a panic.
struct End {
    host: Arc<Host>,
    guest: GuestId,
    run: ProgramRun,
    was_asked_for: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.was_asked_for {
            self.host.scheduler.tell(|dispatcher, now| dispatcher.program_ended(now, self.guest, self.run));
        }
    }
}

/// Runs the program until it ends or `cancelled` is closed.
pub(super) async fn run(host: Arc<Host>, guest: Arc<Guest>, own: Own, cancelled: oneshot::Receiver<()>) {
    let mut end = End { host: host.clone(), guest: guest.id, run: own.run, was_asked_for: false };
    let span = info_span!("program", guest = &*guest.name);
    let ended = within(span, async {
        let Some(active) = guest.active() else { return true };
        let Some(parts) = active.program() else { return true };
        match select(pin!(to_its_end(&host, &guest, parts, own)), cancelled).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => {
                info!("the program was ended");
                false
            }
        }
    });
    end.was_asked_for = !ended.await;
}

/// Returns whether it ended by itself, and not because it is loaded anew.
async fn to_its_end(host: &Arc<Host>, guest: &Arc<Guest>, parts: &Arc<Parts>, own: Own) -> bool {
    let Own { memories, activity, .. } = own;
    let program = match parts.load() {
        Ok(program) => program,
        Err(error) if error.is_stale() => {
            info!(%error, "the compiled component is made anew");
            host.scheduler.tell(|dispatcher, now| dispatcher.reload(now, guest.id));
            return false;
        }
        Err(error) => {
            error!(%error, "the program cannot be loaded");
            host.metrics.trapped(&guest.name, "load");
            host.events.warn("GuestBroken", &guest.name, &format!("guest `{}` cannot be loaded", guest.name));
            return true;
        }
    };
    let limits = &parts.settings.limits;
    let endpoint = match Endpoint::open(&host.runtime, parts.http.clone(), activity.clone(), limits) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            error!(%error, "the program gets no endpoint on 127.0.0.1; the host may be short of file descriptors");
            host.metrics.trapped(&guest.name, "endpoint");
            return true;
        }
    };
    let mut settings = parts.settings.clone();
    settings.env.retain(|(name, _)| ![SERVICE_HOST, SERVICE_PORT, SERVICE_TOKEN].contains(&name.as_str()));
    settings.env.extend([
        (SERVICE_HOST.to_owned(), endpoint.address().ip().to_string()),
        (SERVICE_PORT.to_owned(), endpoint.address().port().to_string()),
        (SERVICE_TOKEN.to_owned(), endpoint.token().to_owned()),
    ]);
    let http = Observed { http: parts.http.clone(), activity: activity.clone() };
    let ready = program.start(&settings, memories, endpoint.address(), Arc::new(http), &parts.logs);
    activity.measure(ready.usage());
    info!("the program starts");
    let error = ready.run(&*activity).await;
    broken(host, guest, &error);
    true
}
