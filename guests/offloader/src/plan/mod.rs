//! What is to be done next for a flow. Pure: [`plan`] sees the custom resource and its objects, and names one step.
//!
//! Every protocol (create, reconfigure, complete, delete) writes the step that it has reached into the status *before*
//! the side effect, and the objects have names that follow from the custom resource. So an instance that was dropped
//! after any write is continued by one that knows nothing but the cluster.

mod begin;
mod delete;
mod finish;
mod observe;
mod remove;
mod run;
mod swap;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use wasm_operator_sdk::conditions;

use crate::api::{FINALIZER, OffloadedAction, OffloadedActionStatus, Phase};
use crate::openwhisk::Resolution;
use crate::settings::Settings;

pub use run::job_patch;

/// Everything that a decision depends on.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The custom resource.
    pub action: OffloadedAction,
    /// The guest's own settings.
    pub settings: Settings,
    /// Now.
    pub now: Timestamp,
    /// The flow's Jobs by identifier.
    pub jobs: BTreeMap<String, Job>,
    /// The pods of these Jobs.
    pub pods: Vec<Pod>,
    /// The flow's Service.
    pub service: Option<Service>,
    /// The answer to [`Step::Resolve`].
    pub resolved: Option<Result<Resolution, Refusal>>,
    /// The answer to [`Step::ReadLog`]; empty if the log cannot be read.
    pub log: Option<String>,
    /// The answer to [`Step::ReadNetwork`].
    pub network: Option<Networks>,
    /// The answer to [`Step::Deliver`]: which endpoint, and whether it acknowledged.
    pub delivery: Option<(usize, Result<(), String>)>,
    /// The answer to [`Step::Push`].
    pub push: Option<Result<(), String>>,
    /// The API server refused a write of the last step.
    pub rejection: Option<Rejection>,
}

/// Why the action cannot be started now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A reason of `ActionResolved`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Worth another attempt without a change.
    pub transient: bool,
}

/// A write that the API server refused, and would refuse again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The write.
    pub write: Write,
    /// The server's words.
    pub message: String,
}

/// Networks of the cluster, as far as they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Of the pods on the node.
    pub pod_cidrs: Vec<String>,
    /// Of Services.
    pub service_cidrs: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Writes, in this order. Stopping after any of them is harmless.
    Write(Vec<Write>),
    /// Look the action up, and see whether everything that it refers to is there.
    Resolve,
    /// Read the last lines of the action's output.
    ReadLog {
        /// The pod's name.
        pod: String,
    },
    /// Read what is known of the networks.
    ReadNetwork {
        /// The pod's node.
        node: String,
    },
    /// Call a completion endpoint.
    Deliver {
        /// Its place in the status.
        index: usize,
    },
    /// Send the runtime configuration to the side container.
    Push {
        /// Where it listens.
        address: String,
        /// The entries to send.
        entries: BTreeMap<String, String>,
    },
    /// Nothing is to be done before a change, or before so long.
    Wait(Option<Duration>),
    /// Something outside refuses for now: try again with growing waits.
    Retry(String),
}

/// One write. All can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds the finalizer (`true`) or takes it away.
    Finalizer(bool),
    /// Replaces the status.
    Status,
    /// Applies Secret, parameters and Job of this identifier.
    Run(String),
    /// Applies the ConfigMap with the runtime configuration, or deletes it if there is to be none.
    Conf,
    /// Applies the NetworkPolicy, or deletes it if there is to be none.
    Policy,
    /// Applies the Service for the Job that it is to lead to.
    Service(String),
    /// Deletes the Service.
    DeleteService,
    /// Changes what of a Job may change.
    Job(String),
    /// Deletes Secret, parameters and, after them, the Job of this identifier.
    DeleteRun(String),
    /// Deletes the Job alone.
    DeleteJob(String),
    /// Deletes what belongs to the whole flow: ConfigMap, NetworkPolicy, Service.
    DeleteFlow,
    /// Publishes an Event.
    Event(Notice),
}

/// An Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// A user should look.
    pub warning: bool,
    /// PascalCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// A step, and the status that its [`Write::Status`] writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// The status.
    pub status: OffloadedActionStatus,
}

impl Notice {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Write {
        Write::Event(Self { warning: false, reason, message: message.into() })
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Write {
        Write::Event(Self { warning: true, reason, message: message.into() })
    }
}

impl Plan {
    /// A step that leaves the status as it is.
    fn only(seen: &Observed, step: Step) -> Self {
        Self { step, status: seen.status() }
    }

    /// Writes the status, then the rest.
    fn record(status: OffloadedActionStatus, then: impl IntoIterator<Item = Write>) -> Self {
        Self { step: Step::Write([Write::Status].into_iter().chain(then).collect()), status }
    }
}

impl Observed {
    pub(crate) fn status(&self) -> OffloadedActionStatus {
        self.action.status.clone().unwrap_or_default()
    }

    fn generation(&self) -> Option<i64> {
        self.action.metadata.generation
    }

    fn time(&self) -> Time {
        Time(self.now)
    }

    /// How long from now until `seconds` after `start`; zero if that is over.
    fn until(&self, start: &Time, seconds: i64) -> Duration {
        let due = start.0.as_second().saturating_add(seconds);
        // Part of a second early would be too early.
        let nanoseconds = start.0.subsec_nanosecond();
        let now = self.now.as_nanosecond();
        let left = i128::from(due) * 1_000_000_000 + i128::from(nanoseconds) - now;
        Duration::from_nanos(u64::try_from(left).unwrap_or_default())
    }

    /// Sets a condition about the current generation.
    fn set(&self, status: &mut OffloadedActionStatus, type_: &str, holds: bool, reason: &str, message: &str) {
        let mut condition = conditions::condition(type_, holds, reason, message, self.generation());
        condition.last_transition_time = self.time();
        conditions::set(&mut status.conditions, condition);
        // The same state has the same text, however it was reached.
        status.conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    }
}

/// Whether a flow has come to its end.
pub(crate) fn has_ended(status: &OffloadedActionStatus) -> bool {
    matches!(status.phase, Phase::Succeeded | Phase::Failed) && status.completion_time.is_some()
}

/// The next step.
#[must_use]
pub fn plan(seen: &Observed) -> Plan {
    let has_finalizer = seen.action.finalizers().iter().any(|name| name == FINALIZER);
    match (seen.action.metadata.deletion_timestamp.is_some(), has_finalizer) {
        (true, true) => return delete::plan(seen),
        (true, false) => return Plan::only(seen, Step::Wait(None)),
        (false, false) => return Plan::only(seen, Step::Write(vec![Write::Finalizer(true)])),
        (false, true) => {}
    }
    if let Some(rejection) = &seen.rejection {
        return run::rejected(seen, rejection);
    }
    let mut refused = None;
    if begin::is_due(seen) {
        match begin::plan(seen) {
            begin::Begin::Step(plan) => return *plan,
            begin::Begin::Refused(message) => refused = Some(message),
        }
    }
    let status = seen.status();
    let plan = match &status.job_id {
        None => begin::idle(seen),
        Some(_) if has_ended(&status) => finish::plan(seen),
        Some(job_id) => run::plan(seen, job_id),
    };
    match (&plan.step, refused) {
        (Step::Wait(_), Some(message)) => Plan { step: Step::Retry(message), ..plan },
        _ => plan,
    }
}

/// The sooner of two waits; none is for ever.
fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
