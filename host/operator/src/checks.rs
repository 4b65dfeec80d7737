//! The checks of `/livez` and `/readyz`.

use std::sync::Arc;

use wasm_operator_cluster::informer::SubscriptionState;
use wasm_operator_core::dispatch::State;

use crate::admin::{Health, Verdict};
use crate::guest::Guest;
use crate::host::Host;

/// The host lives while its scheduler and its workers respond. It is ready when every guest has been brought up or
/// refused: one broken guest does not take the others out of service.
pub(crate) fn health(host: &Arc<Host>) -> Health {
    let (scheduler, workers, guests) = (host.clone(), host.clone(), host.clone());
    Health::builder()
        .live("scheduler", move || {
            let host = scheduler.clone();
            async move {
                host.scheduler.responds().await;
                Ok(String::new())
            }
        })
        .live("workers", move || {
            let answers = workers.workers.respond();
            async move {
                answers.await;
                Ok(String::new())
            }
        })
        .ready("guests", move || ready(&guests))
        .build()
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
