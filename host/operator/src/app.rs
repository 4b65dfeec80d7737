//! The host: everything is made, wired, run and stopped here.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};
use wasm_operator_cluster::callers::Callers;
use wasm_operator_cluster::gateway::{self, ClosedAddresses, Gateway, GatewayMetrics};
use wasm_operator_cluster::informer::{self, Informers};
use wasm_operator_cluster::reachability::Reachability;
use wasm_operator_cluster::rights::Rights;
use wasm_operator_cluster::{client, events, metrics};
use wasm_operator_config::{Approvals, Parsed, Reload, Severity};
use wasm_operator_core::dispatch;
use wasm_operator_engine::{Engine, EngineOptions};
use wasm_operator_hibernation::Hibernation;

use crate::admin::metrics::{Current, Metrics};
use crate::admin::{self, Admin};
use crate::checks;
use crate::forecast::Forecasts;
use crate::front_door::{self, FrontDoor, Listeners, Pending};
use crate::graveyard::Graveyard;
use crate::guest::Guest;
use crate::host::{Guests, Host, HostOptions, HostRunner};
use crate::pool::Components;
use crate::pressure::Budget;
use crate::program::Programs;
use crate::recorder::Recorder;
use crate::scheduler::Scheduler;
use crate::why::Why;
use crate::workers::Workers;

/// Bytes of the heap that compiled components hold before those of the guests asleep longest are unloaded: about ten different
/// Rust components. Each has ten times as much of mapped code, and mapping one again takes less than a millisecond.
const COMPONENT_BYTES: u64 = 2 << 20;

/// How `run` was called.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// Its cache directory is where approvals are kept as well.
    pub(crate) engine: EngineOptions,
    /// The host's own namespace; None outside of a cluster.
    pub(crate) host_namespace: Option<String>,
    /// The admin endpoint; None for none.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Threads for long runs of guests, and for requests to them.
    pub(crate) threads: usize,
    /// A silent watch is dead after this time.
    pub(crate) watch_silence: Duration,
    /// How long running reconciles have at SIGTERM.
    pub(crate) drain: Duration,
    /// Where what wakes guests is written down.
    pub(crate) record_wakes: Option<PathBuf>,
    /// Bytes of anonymous memory that the host may hold; None for the control group's limit, if there is one.
    pub(crate) memory_budget: Option<u64>,
    /// Where guests that serve HTTP are called.
    pub(crate) front_door: front_door::Options,
    /// Where idle programs are written to.
    pub(crate) hibernation: HibernationOptions,
    /// The prediction service that is asked besides.
    pub(crate) prediction_service: Option<wasm_operator_prediction_client::Client>,
}

/// Where idle programs are written to, and how much of them.
#[derive(Debug, Clone)]
pub(crate) struct HibernationOptions {
    /// None for a folder of the cache's directory, if that is on a disk.
    pub(crate) directory: Option<PathBuf>,
    /// Bytes on disk over all programs.
    pub(crate) budget_bytes: u64,
}

/// A directory that was asked for must do. The default one may be on a tmpfs, as in many containers: then programs stay awake.
fn open_hibernation(options: &HibernationOptions, cache: &Path) -> anyhow::Result<Option<Hibernation>> {
    match &options.directory {
        Some(directory) => {
            let opened = Hibernation::open(directory, options.budget_bytes);
            Ok(Some(opened.context("`--hibernation-directory`")?))
        }
        None => match Hibernation::open(&cache.join("hibernation"), options.budget_bytes) {
            Ok(hibernation) => Ok(Some(hibernation)),
            Err(error) => {
                info!(%error, "idle programs stay awake, unless `--hibernation-directory` names a directory on a disk");
                Ok(None)
            }
        },
    }
}

/// Runs guests until SIGTERM or SIGINT, then lets running reconciles end. The runtime is to clear the graveyard when it is idle.
pub(crate) async fn run(options: Options, graveyard: Graveyard) -> anyhow::Result<()> {
    let Options {
        config,
        engine,
        host_namespace,
        admin_listen,
        threads,
        watch_silence,
        drain,
        record_wakes,
        memory_budget,
        front_door,
        prediction_service,
        hibernation,
    } = options;
    allow_descriptors();
    let runtime = Handle::current();
    let mut registry = Registry::default();
    let parsed = wasm_operator_config::read(&config, host_namespace.as_deref())
        .map_err(|diagnostic| anyhow::anyhow!("{diagnostic}"))?;
    let admin = match admin_listen {
        Some(address) => {
            let listener = TcpListener::bind(address);
            Some(listener.await.with_context(|| format!("cannot listen on `{address}` for the admin endpoint"))?)
        }
        None => None,
    };
    let client = client::connect().await?;
    let rights = Rights::new(client.clone());
    let seed = seed();
    let informers = Informers::new(
        client.clone(),
        rights.clone(),
        metrics::Metrics::register(&mut registry),
        informer::Options { silence: watch_silence, seed, ..informer::Options::default() },
        runtime.clone(),
    );
    let events = match host_pod() {
        Some(pod) => events::EventRecorder::new(client.clone(), pod, &runtime),
        None => events::EventRecorder::disabled(),
    };
    let mut gateway_options = gateway::Options::new(runtime.clone());
    gateway_options.events = events.clone();
    let closed: ClosedAddresses = admin.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    gateway_options.closed_addresses = closed.clone();
    let gateway = Gateway::new(
        client.clone(),
        Arc::new(informers.clone()),
        rights,
        GatewayMetrics::register(&mut registry),
        gateway_options,
    );
    let recorder = match record_wakes {
        Some(path) => {
            let opened = Recorder::open(&path);
            Some(opened.with_context(|| format!("cannot write to `{}` what wakes guests", path.display()))?)
        }
        None => None,
    };
    let scheduler = Scheduler::new(dispatch::Options {
        component_bytes: Some(COMPONENT_BYTES),
        seed,
        ..dispatch::Options::default()
    });
    if let Some(budget) = Budget::new(memory_budget) {
        tokio::spawn(budget.watch(scheduler.clone()));
    }
    let forecasts = prediction_service.map(|client| Forecasts::new(client, scheduler.clone(), &mut registry));
    let cache_directory = engine.cache_directory.clone();
    let hibernation = open_hibernation(&hibernation, &cache_directory)?;
    let host = Arc::new(Host {
        options: HostOptions {
            directory: config.parent().map(PathBuf::from).unwrap_or_default(),
            host_namespace: host_namespace.clone(),
        },
        scheduler,
        programs: Programs::new(threads, hibernation),
        workers: Arc::new(Workers::start("guests", threads).context("cannot start the threads on which guests run")?),
        engine: Engine::new(engine)?,
        components: Arc::new(Components::default()),
        graveyard,
        informers,
        gateway,
        events,
        approvals: Approvals::open(&cache_directory)?,
        metrics: Metrics::register(&mut registry),
        recorder,
        forecasts,
        runtime,
        guests: RwLock::new(Guests::default()),
        pending: Pending::default(),
        reconciles: AtomicU64::new(seed),
    });
    if let Some(hibernation) = host.programs.hibernation() {
        host.metrics.set_disk(move || hibernation.disk_bytes());
    }
    let source = Arc::downgrade(&host);
    host.metrics.set_source(move || source.upgrade().map(|host| current(&host)).unwrap_or_default());
    let scheduler = tokio::spawn(host.scheduler.clone().serve(Arc::new(HostRunner(host.clone()))));
    if let Some(listener) = admin {
        info!(address = %listener.local_addr()?, "the admin endpoint listens");
        let health = checks::health(&host, Reachability::new(client.clone()));
        let asked = host.clone();
        let why = Arc::new(move |name: &str| Why::ask(&asked, name));
        tokio::spawn(admin::serve(listener, Admin { registry: Arc::new(registry), health, why }));
    }
    let callers = Callers::new(client.clone(), &front_door.audience, Handle::current());
    let (door, mut connections) = FrontDoor::new(host.clone(), callers, closed);
    let listening = door.listen(&front_door).await?;
    apply(&host, parsed);
    let stop = stop_signal()?;
    tokio::select! {
        () = follow(&host, &door, &config, host_namespace.as_deref()) => {}
        () = stop => {}
    }
    info!("stopping: running reconciles and requests end, nothing new begins");
    let stopping = Instant::now();
    door.stop();
    host.scheduler.tell(|dispatcher, now| dispatcher.drain(now));
    host.programs.stop_all().await;
    if timeout(drain, scheduler).await.is_err() {
        warn!(
            seconds = drain.as_secs(),
            "some reconciles or requests did not end in time; the reconciles are repeated at the next start"
        );
    }
    drop(listening);
    // The last answers are on their way to their callers.
    let left = drain.saturating_sub(stopping.elapsed());
    if timeout(left, connections.recv()).await.is_err() {
        warn!("some callers did not take their answers in time");
    }
    info!("stopped");
    Ok(())
}

/// The guests as the scheduler knows them.
fn current(host: &Host) -> Vec<Current> {
    let guests = host.all();
    host.scheduler.ask(|dispatcher, now| {
        let current = |guest: Arc<Guest>| {
            let snapshot = dispatcher.snapshot(now, guest.id)?;
            Some(Current { guest: guest.name.clone(), concurrency: guest.spec().concurrency, snapshot })
        };
        guests.into_iter().filter_map(current).collect()
    })
}

/// Applies the configuration again whenever it, or a component, changes. Never returns.
async fn follow(host: &Arc<Host>, door: &Arc<FrontDoor>, config: &Path, host_namespace: Option<&str>) {
    let mut reload = Reload::new();
    let mut listeners = Listeners::default();
    loop {
        listeners.apply(door, &host.specs(), &host.options.directory).await;
        reload.watch(std::iter::once(config.to_owned()).chain(files_of(host)));
        reload.changed().await;
        match wasm_operator_config::read(config, host_namespace) {
            Ok(parsed) => apply(host, parsed),
            Err(diagnostic) => error!("the configuration cannot be read, so nothing changes: {diagnostic}"),
        }
    }
}

/// The files that the guests are made of.
fn files_of(host: &Host) -> Vec<PathBuf> {
    host.specs().iter().flat_map(|spec| spec.files(&host.options.directory)).collect()
}

/// Makes the guests those of the configuration. It is consumed because it holds the text of each line, many times the size of
/// what is in force.
fn apply(host: &Arc<Host>, parsed: Parsed) {
    for diagnostic in parsed.diagnostics() {
        match diagnostic.severity {
            Severity::Error => error!("this document is not applied: {diagnostic}"),
            Severity::Warning => warn!("{diagnostic}"),
        }
    }
    host.apply(parsed.changes(&host.specs()));
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The Pod in which the host runs, as its Deployment says through the downward API.
fn host_pod() -> Option<events::HostPod> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(events::HostPod {
        name: variable("POD_NAME")?,
        namespace: variable("POD_NAMESPACE")?,
        uid: variable("POD_UID"),
    })
}

/// Each program holds a listener and both ends of its connections. The soft limit of 1,024, which is the usual one, is for
/// programs that call `select`.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "cannot raise the limit of open files; a host of some hundred programs needs it");
    }
}

/// A seed for jitter: hosts that start together must not act together.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
