//! Guests of the world `operator`: programs that run a loop of their own, each with an endpoint to the gateway.

mod activity;
mod endpoint;
mod hibernate;
mod observed;
mod run;
mod watched;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use wasm_operator_cluster::gateway::GuestGateway;
use wasm_operator_core::dispatch::{GuestId, ProgramRun};
use wasm_operator_engine::{Artifact, Engine, GuestLogs, GuestSettings, LoadError, Program};
use wasm_operator_hibernation::{Hibernation, Memories};

use self::activity::Activity;
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
    /// None where programs stay awake.
    hibernation: Option<Hibernation>,
    /// Places of hibernations under way.
    hibernating: Arc<Semaphore>,
}

/// Hibernations at once: each keeps a thread and the disk busy for milliseconds.
const HIBERNATIONS: usize = 2;

/// A run under way.
struct Running {
    run: ProgramRun,
    memories: Memories,
    activity: Arc<Activity>,
    /// Dropped to end it.
    _hold: oneshot::Sender<()>,
    /// Closed when its store is gone.
    ended: oneshot::Receiver<()>,
}

impl Programs {
    /// None yet, on so many threads later.
    pub(crate) fn new(threads: usize, hibernation: Option<Hibernation>) -> Self {
        let hibernating = Arc::new(Semaphore::new(HIBERNATIONS));
        Self { threads, workers: OnceLock::new(), running: Mutex::default(), hibernation, hibernating }
    }

    /// Where programs are written to, if anywhere.
    pub(crate) fn hibernation(&self) -> Option<Hibernation> {
        self.hibernation.clone()
    }

    /// Whether programs can be hibernated.
    pub(crate) fn can_hibernate(&self) -> bool {
        self.hibernation.is_some()
    }

    /// Runs the guest's program, once what is left of an earlier run is gone.
    pub(crate) fn start(
        &self,
        host: &Arc<Host>,
        guest: Arc<Guest>,
        gateway: Arc<GuestGateway>,
        run: ProgramRun,
    ) -> io::Result<()> {
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
        let hibernation = self.hibernation.as_ref().filter(|_| guest.spec().sleep.hibernate);
        let memories = hibernation.map_or_else(Memories::never_hibernated, Hibernation::memories);
        let activity = Activity::new(host, guest.clone(), gateway, run);
        let running = Running { run, memories: memories.clone(), activity: activity.clone(), _hold: hold, ended };
        let earlier = self.running.lock().insert(id, running);
        let host = host.clone();
        workers.submit(id, move || async move {
            if let Some(earlier) = earlier {
                earlier.end().await;
            }
            run::run(host, guest, Own { run, memories, activity }, cancelled).await;
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

    /// Resolves when the guest's thread has done all that is due.
    fn turn(&self, guest: GuestId) -> impl Future<Output = ()> + Send + use<> {
        let turn = self.workers.get().map(|workers| workers.turn(guest));
        async move {
            if let Some(turn) = turn {
                turn.await;
            }
        }
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

/// What belongs to one run.
struct Own {
    run: ProgramRun,
    memories: Memories,
    activity: Arc<Activity>,
}

impl Running {
    async fn end(self) {
        let Self { _hold: hold, ended, .. } = self;
        drop(hold);
        // Nothing is ever sent: it is closed.
        let _ = ended.await;
    }
}
