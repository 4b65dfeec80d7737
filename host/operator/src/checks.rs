//! The checks of `/livez` and `/readyz`.

use std::sync::Arc;

use wasm_operator_cluster::informer::SubscriptionState;
use wasm_operator_cluster::reachability::Reachability;
use wasm_operator_core::dispatch::State;

use crate::admin::{Health, Verdict};
use crate::guest::Guest;
use crate::host::Host;

/// The host lives while its scheduler and its workers respond. It is ready when it is not stopping, the API server answers,
/// and every guest has been brought up or refused: one broken guest does not take the others out of service.
pub(crate) fn health(host: &Arc<Host>, api_server: Reachability) -> Health {
    let (scheduler, workers, guests, stopping) = (host.clone(), host.clone(), host.clone(), host.clone());
    let api_server = Arc::new(api_server);
    Health::builder()
        .live("scheduler", move || {
            let host = scheduler.clone();
            async move {
                host.scheduler.responds().await;
                Ok(String::new())
            }
        })
        .live("workers", move || {
            let (answers, programs) = (workers.workers.respond(), workers.programs.respond());
            async move {
                answers.await;
                programs.await;
                Ok(String::new())
            }
        })
        .ready("shutdown", move || std::future::ready(is_in_service(&stopping)))
        .ready("api-server", move || {
            let api_server = api_server.clone();
            async move {
                let answer = api_server.check().await;
                answer.map(|()| String::new()).map_err(|error| error.to_string())
            }
        })
        .ready("guests", move || std::future::ready(ready(&guests)))
        .build()
}

fn is_in_service(host: &Host) -> Verdict {
    if host.scheduler.ask(|dispatcher, _| dispatcher.is_draining()) {
        return Err("the host is stopping: running reconciles end, nothing new begins".to_owned());
    }
    Ok(String::new())
}

fn ready(host: &Host) -> Verdict {
    let all = host.all();
    let refused = all.iter().filter(|guest| guest.is_refused()).count();
    let waiting: Vec<String> =
        all.iter().filter_map(|guest| Some(format!("`{}` {}", guest.name, waits_for(host, guest)?))).collect();
    if waiting.is_empty() {
        Ok(format!("{} guests, {refused} of them refused", all.len()))
    } else {
        Err(waiting.join(", "))
    }
}

/// What keeps the guest from being ready.
fn waits_for(host: &Host, guest: &Guest) -> Option<String> {
    let state = host.scheduler.ask(|dispatcher, now| dispatcher.snapshot(now, guest.id))?.state;
    if state == State::Suspended || guest.is_refused() {
        return None;
    }
    let Some(active) = guest.active() else { return Some("is being loaded".to_owned()) };
    active.controllers.iter().find_map(|(controller, watching)| {
        let missing = watching.states().find(|state| matches!(state, SubscriptionState::Syncing));
        missing.map(|_| format!("waits for the objects that its controller `{controller}` watches"))
    })
}
