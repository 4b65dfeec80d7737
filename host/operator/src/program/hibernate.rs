//! Writing idle programs to disk, and reading ahead what they will need.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info_span, warn};
use wasm_operator_core::dispatch::GuestId;
use wasm_operator_hibernation::{HibernateError, Memories, Report};

use super::{Own, Programs};
use crate::guest::Guest;
use crate::host::Host;
use crate::scheduler::Preparation;

/// How long a program is quiet until its contexts follow its memory to disk: the next event of a busy one would read them back
/// at once. Less than the host waits until it lets go of its own code.
const CONTEXTS_AFTER: Duration = Duration::from_secs(1);

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
        let host = host.clone();
        host.runtime.clone().spawn(async move {
            let Some(result) = host.programs.write(&guest, &own, wakes, Memories::hibernate).await else { return };
            let span = info_span!("hibernate", guest = &*guest.name);
            let sleeps = result.is_ok();
            span.in_scope(|| settle(&host, &guest, &own, result));
            if sleeps && own.activity.begins_to_rest() {
                rest(&host, &guest, own).await;
            }
        });
    }

    /// Writes what is the guest's to disk when its turn comes. None if it has gone on by then.
    async fn write(
        &self,
        guest: &Guest,
        own: &Own,
        wakes: u64,
        write: impl FnOnce(&Memories) -> Result<Report, HibernateError> + Send + 'static,
    ) -> Option<Result<Report, HibernateError>> {
        // Closed never, so this only waits.
        let _place = self.hibernating.acquire().await;
        if !own.activity.is_still_idle(wakes) {
            return None;
        }
        // On a busy thread the program's next event, or a timer that is due, may still wait for its turn.
        self.turn(guest.id).await;
        // It may have ended, because it must not be written to disk any more.
        let runs = self.own(guest.id).is_some_and(|now| now.run == own.run);
        if !runs || !own.activity.is_still_idle(wakes) {
            return None;
        }
        let memories = own.memories.clone();
        tokio::task::spawn_blocking(move || write(&memories)).await.ok()
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

/// Writes the contexts of a program that is on disk as well, once it has been quiet for a while.
async fn rest(host: &Arc<Host>, guest: &Arc<Guest>, own: Own) {
    let wakes = loop {
        let Some((wakes, since)) = own.activity.rest() else { return };
        tokio::time::sleep_until(since + CONTEXTS_AFTER).await;
        if own.activity.has_rested(wakes) {
            break wakes;
        }
    };
    let Some(result) = host.programs.write(guest, &own, wakes, Memories::hibernate_contexts).await else { return };
    let span = info_span!("hibernate", guest = &*guest.name);
    span.in_scope(|| match result {
        Ok(Report { bytes, .. }) => host.metrics.contexts_hibernated(&guest.name, bytes),
        Err(HibernateError::Busy | HibernateError::Wanted) => {}
        Err(error) if error.is_fatal() => {
            error!(%error, "the contexts of a program are lost, without which the host cannot even end it: the host ends");
            std::process::abort();
        }
        Err(error) => warn!(%error, "the contexts of a program stay in memory"),
    });
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
