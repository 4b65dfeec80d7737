//! Writing idle programs to disk, and reading ahead what they will need.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info_span, warn};
use wasm_operator_core::dispatch::GuestId;
use wasm_operator_hibernation::{HibernateError, Report};

use super::{Own, Programs};
use crate::guest::Guest;
use crate::host::Host;
use crate::scheduler::Preparation;

impl Programs {
    fn own(&self, guest: GuestId) -> Option<Own> {
        let running = self.running.lock();
        let running = running.get(&guest)?;
        Some(Own { run: running.run, memories: running.memories.clone(), activity: running.activity.clone() })
    }

    /// Writes the guest's memory to disk, unless it goes on before its turn comes.
    pub(crate) fn hibernate(&self, host: &Arc<Host>, guest: Arc<Guest>) {
        let Some(own) = self.own(guest.id) else { return };
        let Some(wakes) = own.activity.to_be_hibernated() else { return };
        let (host, places) = (host.clone(), self.hibernating.clone());
        host.runtime.clone().spawn(async move {
            // Closed never, so this only waits.
            let _place = places.acquire_owned().await;
            if !own.activity.is_still_idle(wakes) {
                return;
            }
            // On a busy thread the program's next event, or a timer that is due, may still wait for its turn.
            host.programs.turn(guest.id).await;
            // It may have ended, because it must not be written to disk any more.
            let runs = host.programs.own(guest.id).is_some_and(|now| now.run == own.run);
            if !runs || !own.activity.is_still_idle(wakes) {
                return;
            }
            let memories = own.memories.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || memories.hibernate()).await else { return };
            let span = info_span!("hibernate", guest = &*guest.name);
            span.in_scope(|| settle(&host, &guest, &own, result));
        });
    }

    /// Has the kernel read what the guest's last wake needed. Answers at once; the disk takes its time.
    pub(crate) fn prefetch(&self, host: &Host, guest: &Guest, preparation: Preparation) {
        if let Some(own) = self.own(guest.id) {
            match own.memories.prefetch() {
                Ok(bytes) => host.metrics.read_ahead(&guest.name, bytes),
                Err(error) => debug!(%error, "the memory of a program cannot be read ahead"),
            }
        }
        preparation.succeed();
    }
}

fn settle(host: &Arc<Host>, guest: &Guest, own: &Own, result: Result<Report, HibernateError>) {
    let run = own.run;
    match result {
        Ok(Report { bytes, microseconds, .. }) => {
            own.activity.hibernated();
            host.metrics.hibernated(&guest.name, bytes, Duration::from_micros(microseconds));
        }
        // It goes on: the scheduler knows it from its next turn.
        Err(HibernateError::Busy | HibernateError::Wanted) => {}
        Err(error) if error.is_fatal() => {
            error!(%error, "the program lost its memory and is started again");
            host.metrics.trapped(&guest.name, "memory-lost");
            drop(host.programs.stop(guest.id));
            host.scheduler.tell(|dispatcher, now| dispatcher.program_ended(now, guest.id, run));
        }
        Err(error) => {
            warn!(%error, "the program cannot be hibernated and stays awake");
            host.metrics.not_hibernated(&guest.name);
            host.scheduler.tell(|dispatcher, now| dispatcher.program_stays_awake(now, guest.id, run));
        }
    }
}
