//! Crashes after every single write of a protocol: whatever is interrupted, and wherever, the end must be that of an
//! undisturbed run, object for object.
//!
//! [`crash_after_every_write`] runs a [`Protocol`] undisturbed, twice, counts the guest's writes and keeps the end state.
//! Then it runs the protocol anew for each write and each [`Fault`], in a namespace and with a host of its own, has
//! the fault happen when the API server has acknowledged that write, lets the protocol go on, and compares.

mod difference;
mod normalise;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::future::FusedFuture as _;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use serde_json::Value;
use tokio::time::{Instant, timeout};

pub use self::difference::difference;
pub use self::normalise::normalise;
use crate::config::Guest;
use crate::crossing::{Crossing, Then};
use crate::host::{Host, HostBuilder};
use crate::space::Space;
use crate::wait::eventually_within;

/// Runs at once. They wait more than they work, but each has a host.
const PARALLEL: usize = 6;
/// The guest's deadline where it is dropped by one: several times what a reconcile takes on a busy machine, since
/// each run waits for it.
const DEADLINE_MILLISECONDS: u64 = 3_000;
/// A protocol, with a crash in the middle.
const MOST: Duration = Duration::from_secs(120);
/// How long nothing may change until a state is taken for an end: other controllers (garbage collection, jobs) act a
/// moment after the guest has.
const STILL: Duration = Duration::from_secs(2);
/// How often a state that still changes is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// One run in so many may end before its fault comes.
const MOST_UNINTERRUPTED: usize = 5;
/// How often the host is started anew until no reconcile fails.
const RESTARTS: usize = 4;

/// What a guest is to do, step by step.
pub trait Protocol {
    /// The guest, with its rights, for objects of this namespace. Each run has a namespace of its own, so a guest that is
    /// told to watch it needs no more.
    fn guest(&self, stage: &Stage<'_>) -> Guest;

    /// The kinds of which all objects in the namespace are compared. Events have generated names and counts; leave them
    /// out.
    fn kinds(&self) -> Vec<ApiResource>;

    /// What is there before the host starts.
    fn prepare(&self, stage: &Stage<'_>) -> impl Future<Output = Result<()>> {
        let _ = stage;
        async { Ok(()) }
    }

    /// What else the host is started with: the address of a front door, another guest.
    fn host<'a>(&self, stage: &Stage<'_>, host: HostBuilder<'a>) -> HostBuilder<'a> {
        let _ = stage;
        host
    }

    /// What a user does, and what follows it: returns when the last step has had its effect. It must not depend on
    /// how often the guest or the host is started meanwhile.
    fn run(&self, stage: &Stage<'_>) -> impl Future<Output = Result<()>>;

    /// Takes values away that differ between two undisturbed runs for a good reason. Uids, times, versions, generated names, random
    /// ids and allocated addresses are taken away already.
    fn adapt(&self, object: &mut Value) {
        let _ = object;
    }
}

/// Where one run takes place.
pub struct Stage<'a> {
    /// The test's.
    pub space: &'a Space,
    /// Of this run alone.
    pub namespace: String,
    /// Of this run: a name that is different in each, for directories and the like.
    pub name: String,
}

/// What happens when the API server has acknowledged a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The answer never comes, and the guest's instance is dropped at its deadline, in the middle of the call.
    DropGuest,
    /// The host is killed (SIGKILL) before it has the answer, and started again.
    KillHost,
    /// The connection is cut in place of the answer: the guest lives, and cannot know.
    LoseAnswer,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DropGuest, Self::KillHost, Self::LoseAnswer];

    fn short(self) -> &'static str {
        match self {
            Self::DropGuest => "drop",
            Self::KillHost => "kill",
            Self::LoseAnswer => "lose",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DropGuest => "the guest is dropped",
            Self::KillHost => "the host is killed",
            Self::LoseAnswer => "the answer is lost",
        })
    }
}

/// What became of all runs.
#[derive(Debug)]
pub struct Report {
    /// The guest's writes in an undisturbed run, such as `PATCH /api/v1/...`.
    pub writes: Vec<String>,
    /// Runs with a fault.
    pub runs: usize,
    /// Those that ended before the fault came, because the guest saw several changes as one and wrote less.
    pub uninterrupted: usize,
    /// Those that did not end as the undisturbed one.
    pub failures: Vec<Failure>,
}

/// A run that did not end as the undisturbed one.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub fault: Fault,
    /// After which write, counted from 1.
    pub after: usize,
    /// That write.
    pub write: String,
    /// How the end differs, or why there was none.
    pub difference: String,
    /// The log of the run's host.
    pub log: PathBuf,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} after write {}, `{}`:", self.fault, self.after, self.write)?;
        writeln!(f, "{}    the host's log: {}", self.difference, self.log.display())
    }
}

impl Report {
    /// Fails with everything that differs, and if more than a few runs were not interrupted.
    pub fn check(self) -> Result<()> {
        ensure!(
            self.uninterrupted * MOST_UNINTERRUPTED <= self.runs,
            "{} of {} runs ended before their fault came: the protocol depends on too much else to say anything",
            self.uninterrupted,
            self.runs
        );
        if self.failures.is_empty() {
            return Ok(());
        }
        let failures: String = self.failures.iter().map(ToString::to_string).collect();
        bail!("{} of {} runs did not end as the undisturbed one:\n{failures}", self.failures.len(), self.runs)
    }
}

type State = BTreeMap<String, Value>;

fn run_name(fault: Fault, after: usize) -> String {
    format!("{}-{after}", fault.short())
}

fn host_name(run: &str) -> String {
    format!("{run}-host")
}

/// Runs the protocol with each fault after each write.
pub async fn crash_after_every_write(space: &Space, protocol: &impl Protocol, faults: &[Fault]) -> Result<Report> {
    let (first, second) =
        tokio::try_join!(Run::undisturbed(space, protocol, "calm-1"), Run::undisturbed(space, protocol, "calm-2"))?;
    let differs = difference(&first.state, &second.state);
    ensure!(
        differs.is_empty(),
        "two undisturbed runs end in different states, so nothing can be compared; see `Protocol::adapt`:\n{differs}"
    );
    ensure!(!first.writes.is_empty(), "the guest writes nothing");
    // Where the runs differ in their writes, those that both have are tried.
    let count = first.writes.len().min(second.writes.len());
    let runs = faults.iter().flat_map(|fault| (1..=count).map(|after| (*fault, after)));
    let undisturbed = &first;
    let outcomes: Vec<Outcome> = stream::iter(runs)
        .map(|(fault, after)| async move {
            let outcome = Run::disturbed(space, protocol, fault, after, &undisturbed.state).await;
            let (write, difference) = match outcome {
                Ok(Ended { write: None, differs }) if differs.is_empty() => return Ok(Outcome::Uninterrupted),
                Ok(Ended { differs, .. }) if differs.is_empty() => return Ok(Outcome::Same),
                Ok(Ended { write, differs }) => (write.unwrap_or_default(), differs),
                Err(error) => (String::new(), format!("    {error:#}\n")),
            };
            let write =
                if write.is_empty() { undisturbed.writes.get(after - 1).cloned().unwrap_or_default() } else { write };
            let log = space.directory().join(host_name(&run_name(fault, after))).join("host.log");
            anyhow::Ok(Outcome::Different(Failure { fault, after, write, difference, log }))
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let mut report = Report { writes: first.writes, runs: outcomes.len(), uninterrupted: 0, failures: Vec::new() };
    for outcome in outcomes {
        match outcome {
            Outcome::Same => {}
            Outcome::Uninterrupted => report.uninterrupted += 1,
            Outcome::Different(failure) => report.failures.push(failure),
        }
    }
    Ok(report)
}

/// How a run with a fault ended.
enum Outcome {
    Same,
    Uninterrupted,
    Different(Failure),
}

/// One run, with a host of its own behind a crossing.
struct Run<'a, P> {
    protocol: &'a P,
    stage: Stage<'a>,
    // Ended before its way to the API server is.
    host: Host,
    crossing: Crossing,
    guest: String,
}

struct Undisturbed {
    writes: Vec<String>,
    state: State,
}

struct Ended {
    /// After which the fault came; none if it never did.
    write: Option<String>,
    differs: String,
}

impl<'a, P: Protocol> Run<'a, P> {
    async fn undisturbed(space: &'a Space, protocol: &'a P, name: &str) -> Result<Undisturbed> {
        let run = async {
            let mut run = Self::prepare(space, protocol, name, None).await?;
            run.host.start().await?;
            run.protocol.run(&run.stage).await?;
            // The effect of a write is seen before its answer has crossed.
            run.until_idle().await?;
            let writes = run.crossing.writes().into_iter().map(|write| write.0).collect();
            run.settle().await?;
            let state = run.still_state().await?;
            anyhow::Ok(Undisturbed { writes, state })
        };
        timeout(MOST, run).await.context("it takes too long")?.with_context(|| format!("the undisturbed run `{name}`"))
    }

    async fn disturbed(
        space: &'a Space,
        protocol: &'a P,
        fault: Fault,
        after: usize,
        expected: &State,
    ) -> Result<Ended> {
        let name = run_name(fault, after);
        let mut run = Self::prepare(space, protocol, &name, Some(fault)).await?;
        let ended = timeout(MOST, run.with_fault(fault, after, expected)).await;
        ended.with_context(|| format!("not at its end after {} s", MOST.as_secs()))?
    }

    async fn with_fault(&mut self, fault: Fault, after: usize, expected: &State) -> Result<Ended> {
        let then = match fault {
            Fault::DropGuest => Then::Withhold,
            Fault::KillHost => Then::Freeze,
            Fault::LoseAnswer => Then::Cut,
        };
        self.crossing.arm(after, then);
        self.host.start().await?;
        let Self { protocol, stage, crossing, host, guest } = self;
        if fault == Fault::KillHost {
            let mut run = pin!(protocol.run(stage).fuse());
            // After its last step the guest may have something left to write.
            let to_its_end = async {
                run.as_mut().await?;
                until_idle(host, crossing, guest).await
            };
            let ended = tokio::select! {
                ended = to_its_end => Some(ended),
                () = crossing.fired() => None,
            };
            if let Some(ended) = ended {
                ended?;
            } else {
                host.kill()?;
                crossing.pass();
                host.start().await?;
                if !run.is_terminated() {
                    run.await?;
                }
            }
        } else {
            protocol.run(stage).await?;
        }
        // As above; and a guest whose last answer is withheld is dropped before it is looked at.
        self.until_idle().await?;
        let write = self.crossing.writes().get(after - 1).map(|write| write.0.clone());
        let write = write.filter(|_| self.crossing.has_fired());
        self.settle().await?;
        Ok(Ended { write, differs: self.difference_from(expected).await? })
    }

    async fn prepare(space: &'a Space, protocol: &'a P, name: &str, fault: Option<Fault>) -> Result<Self> {
        let namespace = space.namespace(name).await?;
        let stage = Stage { space, namespace, name: name.to_owned() };
        protocol.prepare(&stage).await?;
        let mut guest = protocol.guest(&stage).idle_after("50ms");
        if fault == Some(Fault::DropGuest) {
            guest = guest.limit("reconcileMilliseconds", DEADLINE_MILLISECONDS);
        }
        let crossing = Crossing::start(space.cluster().kubeconfig()).await?;
        let name = guest.name().to_owned();
        let host = space.host().named(&host_name(&stage.name)).across(&crossing).guest(guest);
        let host = protocol.host(&stage, host).prepare().await?;
        crossing.watch_user(&host.user_of(&name));
        Ok(Self { protocol, stage, crossing, host, guest: name })
    }

    /// Starts the host anew, so that every object is reconciled once more and no retry is left waiting, and returns
    /// when nothing is left to do and nothing has failed.
    async fn settle(&mut self) -> Result<()> {
        let mut failed = 0.0;
        for _ in 0..RESTARTS {
            self.host.kill()?;
            self.host.start().await?;
            self.host.until_ready().await?;
            failed = self.until_idle().await?;
            if failed == 0.0 {
                return Ok(());
            }
        }
        bail!("reconciles fail again and again, {failed} of them since the last start of the host")
    }

    /// Waits until the guest has nothing left to do but what a timer will bring; returns how many reconciles have failed
    /// since the host was started.
    async fn until_idle(&self) -> Result<f64> {
        until_idle(&self.host, &self.crossing, &self.guest).await
    }

    /// Waits until the state is the expected one, and gives up when it has become still without being so.
    async fn difference_from(&self, expected: &State) -> Result<String> {
        let mut seen = (self.versions().await?, Instant::now());
        loop {
            let differs = difference(expected, &self.state().await?);
            if differs.is_empty() {
                return Ok(differs);
            }
            tokio::time::sleep(LOOK).await;
            let versions = self.versions().await?;
            if versions != seen.0 {
                seen = (versions, Instant::now());
            } else if seen.1.elapsed() > STILL {
                return Ok(differs);
            }
        }
    }

    async fn still_state(&self) -> Result<State> {
        let mut seen = (self.versions().await?, Instant::now());
        while seen.1.elapsed() <= STILL {
            tokio::time::sleep(LOOK).await;
            let versions = self.versions().await?;
            if versions != seen.0 {
                seen = (versions, Instant::now());
            }
        }
        self.state().await
    }

    async fn versions(&self) -> Result<Vec<String>> {
        let objects = self.objects().await?;
        let version = |object: &Value| {
            let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{} {}", text("/metadata/uid"), text("/metadata/resourceVersion"))
        };
        Ok(objects.iter().map(version).collect())
    }

    async fn state(&self) -> Result<State> {
        let mut objects = self.objects().await?;
        objects.iter_mut().for_each(|object| self.protocol.adapt(object));
        Ok(normalise(objects, &self.stage.namespace))
    }

    async fn objects(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for kind in self.protocol.kinds() {
            let api: Api<DynamicObject> = Api::namespaced_with(self.stage.space.client(), &self.stage.namespace, &kind);
            for mut object in api.list(&ListParams::default()).await?.items {
                // Items of a list do not say what they are.
                object.types =
                    Some(kube::core::TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
                all.push(
                    serde_json::to_value(object).map_err(|error| anyhow!("an object of `{}`: {error}", kind.plural))?,
                );
            }
        }
        Ok(all)
    }
}

async fn until_idle(host: &Host, crossing: &Crossing, guest: &str) -> Result<f64> {
    eventually_within(MOST, "the guest has nothing left to do", async || {
        let metrics = host.metrics().await?;
        let of_guest = [("controller", guest)];
        let waiting = metrics.sum("workqueue_depth", &of_guest);
        let running = metrics.sum("controller_runtime_active_workers", &of_guest);
        let requests = crossing.in_flight();
        ensure!(
            waiting + running == 0.0 && requests == 0,
            "{waiting} keys wait, {running} reconciles and {requests} requests are under way"
        );
        Ok(metrics.sum("controller_runtime_reconcile_errors_total", &of_guest))
    })
    .await
}
