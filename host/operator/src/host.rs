//! The guests of the configuration, and what the scheduler asks to be done with them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tracing::{error, info, warn};
use wasm_operator_cluster::events::EventRecorder;
use wasm_operator_cluster::gateway::Gateway;
use wasm_operator_cluster::informer::Informers;
use wasm_operator_config::{Approvals, Change, GuestSpec, Sleep};
use wasm_operator_core::backoff::{Backoff, Random};
use wasm_operator_core::dispatch::{self, GuestId, Job, Key, ProgramRun, RequestId, Serve, SleepReason, Time};
use wasm_operator_core::reconcile::Cause;
use wasm_operator_engine::Engine;

use crate::admin::metrics::Metrics;
use crate::forecast::Forecasts;
use crate::front_door::{self, End, Pending};
use crate::graveyard::Graveyard;
use crate::guest::Guest;
use crate::pool::{Components, Pool};
use crate::program::Programs;
use crate::reconcile::{prepare, reconcile};
use crate::recorder::Recorder;
use crate::revision::{Refusal, Revision};
use crate::scheduler::{Preparation, Run, Runner, Scheduler, Serving};
use crate::workers::Workers;

/// Wait before something transient, such as an API server that does not answer, is tried again.
const TRANSIENT: Backoff = Backoff { base: Duration::from_millis(250), max: Duration::from_secs(5) };

/// What guests are run with.
#[derive(Debug, Clone)]
pub(crate) struct HostOptions {
    /// Relative component paths start here.
    pub(crate) directory: PathBuf,
    /// The host's own namespace, closed to guests; None outside of a cluster.
    pub(crate) host_namespace: Option<String>,
}

/// Everything that runs guests.
pub(crate) struct Host {
    pub(crate) options: HostOptions,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) programs: Programs,
    pub(crate) engine: Engine,
    pub(crate) components: Arc<Components>,
    pub(crate) graveyard: Graveyard,
    pub(crate) informers: Informers,
    pub(crate) gateway: Gateway,
    pub(crate) events: EventRecorder,
    pub(crate) approvals: Approvals,
    pub(crate) metrics: Metrics,
    /// Writes down what wakes guests, if asked to.
    pub(crate) recorder: Option<Recorder>,
    /// The prediction service, if there is one.
    pub(crate) forecasts: Option<Forecasts>,
    /// Where everything but guests runs.
    pub(crate) runtime: Handle,
    pub(crate) guests: RwLock<Guests>,
    /// Requests that wait for their guest.
    pub(crate) pending: Pending,
    /// Numbers the reconciles and the requests, for the log.
    pub(crate) reconciles: AtomicU64,
}

/// The guests by both of their names.
#[derive(Default)]
pub(crate) struct Guests {
    by_name: BTreeMap<String, Arc<Guest>>,
    by_id: HashMap<GuestId, Arc<Guest>>,
}

impl Host {
    /// The namespace of ServiceAccounts that are named without one.
    pub(crate) fn identity_namespace(&self) -> &str {
        self.options.host_namespace.as_deref().unwrap_or("default")
    }

    pub(crate) fn guest(&self, id: GuestId) -> Option<Arc<Guest>> {
        self.guests.read().by_id.get(&id).cloned()
    }

    /// The guest of that name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Guest>> {
        self.guests.read().by_name.get(name).cloned()
    }

    /// The next number of a reconcile or a request.
    pub(crate) fn next_reconcile(&self) -> u64 {
        self.reconciles.fetch_add(1, Ordering::Relaxed)
    }

    /// All guests of the configuration, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Guest>> {
        self.guests.read().by_name.values().cloned().collect()
    }

    pub(crate) fn specs(&self) -> Vec<GuestSpec> {
        self.all().iter().map(|guest| guest.spec()).collect()
    }

    /// Brings what runs in line with the configuration.
    pub(crate) fn apply(self: &Arc<Self>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Added(spec) => self.add(spec),
                Change::Changed { old, new } => self.change(&old, new),
                Change::Removed(spec) => self.remove(&spec.name),
            }
        }
        for guest in self.all() {
            if guest.has_new_files(self) {
                info!(guest = &*guest.name, "a file of the guest has changed");
                self.replace(&guest, guest.spec());
            }
        }
    }

    fn add(&self, spec: GuestSpec) {
        info!(guest = spec.name, "the guest is added");
        let (name, settings) = (spec.name.clone(), spec.settings());
        // Under the lock, so that the scheduler's first command finds the guest.
        let mut guests = self.guests.write();
        let id = self.scheduler.tell(|dispatcher, now| dispatcher.add(now, settings));
        let guest = Arc::new(Guest::new(id, spec));
        guests.by_name.insert(name, guest.clone());
        guests.by_id.insert(id, guest);
    }

    fn change(self: &Arc<Self>, old: &GuestSpec, new: GuestSpec) {
        let Some(guest) = self.guests.read().by_name.get(&new.name).cloned() else { return };
        info!(guest = &*guest.name, "the guest's configuration has changed");
        let settings = new.settings();
        self.scheduler.tell(|dispatcher, now| dispatcher.update(now, guest.id, settings));
        if differs_in_scheduling_only(old, &new) {
            guest.reschedule(new);
        } else {
            self.replace(&guest, new);
        }
    }

    fn remove(&self, name: &str) {
        let Some(guest) = self.guests.write().by_name.remove(name) else { return };
        info!(guest = name, "the guest is removed; its running reconciles end");
        guest.abandon();
        if let Err(error) = self.approvals.forget(name) {
            warn!(guest = name, %error, "cannot forget what was approved for the guest");
        }
        self.scheduler.tell(|dispatcher, now| dispatcher.remove(now, guest.id));
    }

    /// Prepares a new version beside the one that runs, which goes on until the new one is ready.
    fn replace(self: &Arc<Self>, guest: &Arc<Guest>, spec: GuestSpec) {
        let generation = guest.configure(spec.clone());
        if guest.active().is_none() {
            self.scheduler.tell(|dispatcher, now| dispatcher.reload(now, guest.id));
            return;
        }
        let (host, guest) = (self.clone(), guest.clone());
        self.runtime.spawn(async move {
            match host.prepare(&guest, generation, spec).await {
                Some(Ok(revision)) => {
                    guest.stage(revision);
                    host.scheduler.tell(|dispatcher, now| dispatcher.reload(now, guest.id));
                }
                Some(Err(Refusal { files, error })) => {
                    error!(guest = &*guest.name, %error, "the change is not applied; the guest goes on as it was");
                    host.events.warn("GuestRejected", &guest.name, &error.note(&guest.name));
                    guest.refuse(files);
                }
                None => {}
            }
        });
    }

    /// Prepares a version, patiently where only the API server is missing. None if it is outdated meanwhile.
    async fn prepare(
        self: &Arc<Self>,
        guest: &Guest,
        generation: u64,
        spec: GuestSpec,
    ) -> Option<Result<Revision, Refusal>> {
        let mut random = Random::new(generation);
        let mut failures = 0;
        loop {
            let result = Revision::prepare(self, guest.id, spec.clone()).await;
            if !guest.is_current(generation) {
                return None;
            }
            match result {
                Err(Refusal { error, .. }) if error.is_transient() => {
                    if failures == 0 {
                        warn!(guest = &*guest.name, %error, "cannot prepare the guest yet; trying again");
                    }
                    tokio::time::sleep(TRANSIENT.delay(failures, &mut random)).await;
                    failures = failures.saturating_add(1);
                }
                result => return Some(result),
            }
        }
    }

    /// Loads what is staged, or else the guest as it is configured.
    async fn load(self: &Arc<Self>, guest: &Guest) {
        loop {
            let generation = guest.generation();
            let spec = guest.spec();
            let prepared = match guest.staged() {
                Some(revision) => Some(Ok(revision)),
                None => self.prepare(guest, generation, spec).await,
            };
            let loaded = match prepared {
                Some(Ok(revision)) => guest.activate(self, revision),
                Some(Err(refusal)) => Err(refusal),
                // Changed meanwhile: load it as it is configured now. Removed meanwhile: the scheduler says so.
                None if self.is_configured(guest) => continue,
                None => return,
            };
            match loaded {
                Ok(()) => self.scheduler.tell(|dispatcher, now| {
                    let controllers = guest.active();
                    dispatcher.retain(now, guest.id, |key| {
                        controllers.as_ref().is_some_and(|active| active.controllers.contains_key(&key.controller))
                    });
                    if controllers.is_some_and(|active| active.program().is_some()) {
                        dispatcher.loaded_program(now, guest.id, self.may_hibernate(&guest.spec()));
                    } else {
                        dispatcher.loaded(now, guest.id);
                    }
                }),
                Err(Refusal { files, error }) => {
                    error!(guest = &*guest.name, kind = error.kind(), %error, "the guest cannot run");
                    self.metrics.trapped(&guest.name, error.kind());
                    self.events.warn("GuestRejected", &guest.name, &error.note(&guest.name));
                    guest.refuse(files);
                    self.scheduler.tell(|dispatcher, now| dispatcher.load_failed(now, guest.id));
                }
            }
            return;
        }
    }

    fn may_hibernate(&self, spec: &GuestSpec) -> bool {
        spec.sleep.hibernate && self.programs.can_hibernate()
    }

    /// A change or a request reached the guest at that time, for those who learn from the past.
    pub(crate) fn note_event(&self, guest: &Guest, queued: Time) {
        if let Some(recorder) = &self.recorder {
            recorder.record(&guest.name, SystemTime::now() - self.scheduler.now().since(queued));
        }
        if let Some(forecasts) = &self.forecasts {
            forecasts.event(guest.id, queued);
        }
    }

    fn is_configured(&self, guest: &Guest) -> bool {
        self.guests.read().by_name.get(&*guest.name).is_some_and(|configured| configured.id == guest.id)
    }
}

/// The scheduler's hands.
pub(crate) struct HostRunner(pub(crate) Arc<Host>);

impl Runner for HostRunner {
    fn load(&self, id: GuestId) {
        let host = self.0.clone();
        host.workers.slept(id);
        let Some(guest) = host.guest(id) else { return };
        if let Some(pool) = guest.active().as_ref().and_then(|active| active.pool()) {
            pool.unload();
        }
        let stopped = host.programs.stop(id);
        host.runtime.clone().spawn(async move {
            stopped.await;
            host.load(&guest).await;
        });
    }

    fn run(&self, job: Job, run: Run) {
        let host = self.0.clone();
        let Some(guest) = host.guest(job.guest) else { return };
        if job.cause == Cause::Change {
            host.note_event(&guest, job.queued);
        }
        // Mapping a component may have to wait for a disk.
        let is_mapped = guest.active().as_ref().and_then(|active| active.pool()).is_some_and(Pool::is_mapped);
        let (id, reconcile) = (job.guest, reconcile(host, guest, job, run));
        if is_mapped {
            self.0.workers.begin(&self.0.runtime, id, reconcile);
        } else {
            self.0.workers.submit(id, move || reconcile);
        }
    }

    fn serve(&self, serve: Serve, serving: Serving) {
        let host = self.0.clone();
        let Some(guest) = host.guest(serve.guest) else { return };
        // Withdrawn in this moment: nothing of it reached the guest.
        let Some(waiting) = host.pending.take(serve.request) else { return serving.finish(false, Duration::ZERO) };
        let queued = serve.queued;
        host.note_event(&guest, queued);
        self.0.workers.submit(serve.guest, move || front_door::serve(host, guest, serve, waiting, serving));
    }

    fn start(&self, id: GuestId, run: ProgramRun) {
        let Some(guest) = self.0.guest(id) else { return };
        let Some(gateway) = guest.active().map(|active| active.gateway.clone()) else { return };
        if let Err(error) = self.0.programs.start(&self.0, guest.clone(), gateway, run) {
            error!(guest = &*guest.name, %error, "cannot start the threads on which programs run");
            self.0.scheduler.tell(|dispatcher, now| dispatcher.program_ended(now, id, run));
        }
    }

    fn refuse(&self, request: RequestId, refusal: dispatch::Refusal) {
        if let Some(waiting) = self.0.pending.take(request) {
            // The caller may have left.
            let _ = waiting.end.send(End::Refused(refusal));
        }
    }

    fn prepare(&self, id: GuestId, preparation: Preparation) {
        let host = self.0.clone();
        let Some(guest) = host.guest(id) else { return preparation.succeed() };
        if guest.active().is_some_and(|active| active.program().is_some()) {
            return host.programs.prefetch(&host, &guest, preparation);
        }
        self.0.workers.submit(id, move || prepare(host, guest, preparation));
    }

    fn sleep(&self, id: GuestId, reason: SleepReason) {
        let Some(guest) = self.0.guest(id) else { return };
        self.0.metrics.slept(&guest.name, reason);
        let active = guest.active();
        if active.as_ref().is_some_and(|active| active.program().is_some()) {
            match reason {
                SleepReason::Idle | SleepReason::Pressure => self.0.programs.hibernate(&self.0, guest),
                // Its memory is given back when its thread has its turn.
                SleepReason::Failed | SleepReason::Suspended => drop(self.0.programs.stop(id)),
            }
            return;
        }
        let instances = active.as_ref().and_then(|active| active.pool()).map(Pool::sleep).unwrap_or_default();
        self.0.graveyard.bury(instances);
        self.0.workers.slept(id);
    }

    fn unload(&self, id: GuestId) {
        let active = self.0.guest(id).and_then(|guest| guest.active());
        if let Some(pool) = active.as_ref().and_then(|active| active.pool()) {
            pool.unload();
        }
    }

    fn resync(&self, id: GuestId) {
        let Some(active) = self.0.guest(id).and_then(|guest| guest.active()) else { return };
        let keys: Vec<Key> = active
            .controllers
            .iter()
            .flat_map(|(controller, watching)| {
                let key = |object: Arc<wasm_operator_core::object::Object>| Key {
                    controller: controller.clone(),
                    object: object.object_ref(),
                };
                watching.primary.list().into_iter().map(key)
            })
            .collect();
        self.0.scheduler.tell(|dispatcher, now| dispatcher.resync(now, id, keys));
    }

    fn removed(&self, id: GuestId) {
        drop(self.0.programs.stop(id));
        self.0.workers.removed(id);
        if let Some(forecasts) = &self.0.forecasts {
            forecasts.forget(id);
        }
        let Some(guest) = self.0.guests.write().by_id.remove(&id) else { return };
        guest.retire();
        if !self.0.guests.read().by_name.contains_key(&*guest.name) {
            self.0.metrics.removed(&guest.name);
            self.0.gateway.forget(&guest.name);
        }
    }
}

/// Whether a change needs neither another component nor other rights, so that what runs can go on.
fn differs_in_scheduling_only(old: &GuestSpec, new: &GuestSpec) -> bool {
    let same = GuestSpec {
        // What is on disk already goes with the program that it belongs to.
        sleep: Sleep { hibernate: old.sleep.hibernate, ..new.sleep.clone() },
        serve: new.serve.clone(),
        concurrency: new.concurrency,
        weight: new.weight,
        resync: new.resync,
        suspend: new.suspend,
        ..old.clone()
    };
    same == *new
}
