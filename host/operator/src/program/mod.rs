//! Guests of the world `operator`: programs that run a loop of their own, each with an endpoint to the gateway.

mod activity;
mod endpoint;
mod observed;
mod run;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasm_operator_core::dispatch::{GuestId, ProgramRun};
use wasm_operator_engine::{Artifact, Engine, GuestLogs, GuestSettings, LoadError, Program};

use crate::guest::Guest;
use crate::host::Host;
use crate::outgoing::Outgoing;
use crate::pool::Components;
use crate::workers::Workers;

/// What one version of a guest runs its program with.
pub(crate) struct Parts {
    engine: Engine,
    components: Arc<Components>,
    artifact: Artifact,
    settings: GuestSettings,
    http: Arc<Outgoing>,
    logs: Arc<GuestLogs>,
}

impl Parts {
    pub(crate) fn new(
        engine: Engine,
        components: Arc<Components>,
        artifact: Artifact,
        settings: GuestSettings,
        http: Arc<Outgoing>,
        logs: Arc<GuestLogs>,
    ) -> Self {
        Self { engine, components, artifact, settings, http, logs }
    }

    fn load(&self) -> Result<Arc<Program>, LoadError> {
        self.components.load_program(&self.engine, &self.artifact)
    }
}

/// The programs that run, and the threads that they run on. These are not the threads of the reconciles: a program is
/// polled for as long as the host lives, and one that computes shall be in the way of other programs only.
pub(crate) struct Programs {
    threads: usize,
    /// Started with the first program.
    workers: OnceLock<Workers>,
    running: Mutex<HashMap<GuestId, Running>>,
}

/// A run under way.
struct Running {
    /// Dropped to end it.
    _hold: oneshot::Sender<()>,
    /// Closed when its store is gone.
    ended: oneshot::Receiver<()>,
}

impl Programs {
    /// None yet, on so many threads later.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, workers: OnceLock::new(), running: Mutex::default() }
    }

    /// Runs the guest's program, once what is left of an earlier run is gone.
    pub(crate) fn start(&self, host: &Arc<Host>, guest: Arc<Guest>, run: ProgramRun) -> io::Result<()> {
        let workers = match self.workers.get() {
            Some(workers) => workers,
            None => {
                let workers = Workers::start("programs", self.threads)?;
                self.workers.get_or_init(|| workers)
            }
        };
        let (hold, cancelled) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let id = guest.id;
        let earlier = self.running.lock().insert(id, Running { _hold: hold, ended });
        let host = host.clone();
        workers.submit(id, move || async move {
            if let Some(earlier) = earlier {
                earlier.end().await;
            }
            run::run(host, guest, run, cancelled).await;
            drop(ends);
        });
        Ok(())
    }

    /// Ends the guest's program at its next wait. Resolves when its memory is given back.
    pub(crate) fn stop(&self, guest: GuestId) -> impl Future<Output = ()> + Send + use<> {
        let running = self.running.lock().remove(&guest);
        if let Some(workers) = self.workers.get() {
            workers.slept(guest);
        }
        async move {
            if let Some(running) = running {
                running.end().await;
            }
        }
    }

    /// Ends all programs.
    pub(crate) async fn stop_all(&self) {
        let all: Vec<_> = self.running.lock().drain().map(|(_, running)| running).collect();
        futures::future::join_all(all.into_iter().map(Running::end)).await;
    }

    /// Resolves when every thread has taken a turn.
    pub(crate) fn respond(&self) -> impl Future<Output = ()> + Send + use<> {
        let answers = self.workers.get().map(Workers::respond);
        async move {
            if let Some(answers) = answers {
                answers.await;
            }
        }
    }
}

impl Running {
    async fn end(self) {
        let Self { _hold: hold, ended } = self;
        drop(hold);
        // Nothing is ever sent: it is closed.
        let _ = ended.await;
    }
}
