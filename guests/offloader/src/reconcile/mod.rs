//! The thin shell around [`plan`](crate::plan): it reads, does one step after the other, and stops when there is
//! nothing to do.

mod look;
mod reference;
mod target;
mod write;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use wasm_operator_sdk::Action;

use crate::api::OffloadedAction;
use crate::plan::{Observed, Plan, Step, Write, plan};
use crate::settings::Settings;

pub(crate) use target::{error_policy as target_error_policy, reconcile as reconcile_target};

/// The longest chain of steps is that of a deletion with all its endpoints; more means that two steps undo each other.
const MOST_STEPS: usize = 100;
/// The wait after a conflict: the change that caused it is on its way to the cache.
const CONFLICT_WAIT: Duration = Duration::from_millis(100);

/// What every call needs.
pub(crate) struct Context {
    /// The API server, and by it every other host.
    pub client: Client,
    /// From the environment.
    pub settings: Settings,
}

/// Why a reconcile failed. All are tried again with the host's backoff.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not answer, or refuses for now. The administrator's to look at if it lasts.
    #[error("cannot {what}: {}", explain(.source))]
    Kubernetes {
        /// What was tried.
        what: String,
        /// What was seen.
        source: kube::Error,
    },
    /// The object has changed since it was read.
    #[error("the custom resource has changed meanwhile")]
    Conflict,
    /// Something outside refuses for now.
    #[error("{0}")]
    Refused(String),
    /// A fault of this program: two steps undo each other.
    #[error("there was no end after {MOST_STEPS} steps; the last one was {0}")]
    Endless(String),
}

/// The API server's own words, without the debug output that kube's error adds to them.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl Error {
    /// For `map_err`.
    pub(crate) fn to(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kubernetes { what, source }
    }
}

/// Called for each `OffloadedAction` when it, its Jobs, pods, Service or target change, and when a timer is due.
pub(crate) async fn reconcile(action: Arc<OffloadedAction>, context: Arc<Context>) -> Result<Action, Error> {
    match steps(&action, &context).await {
        Err(Error::Conflict) => Ok(Action::requeue(CONFLICT_WAIT)),
        other => other,
    }
}

/// What becomes of an error: the host tries again with a growing delay.
pub(crate) fn error_policy(_: Arc<OffloadedAction>, _: &Error, _: Arc<Context>) -> Action {
    Action::retry()
}

async fn steps(action: &OffloadedAction, context: &Context) -> Result<Action, Error> {
    let mut seen = look::look(action, context).await?;
    let mut last = String::new();
    for _ in 0..MOST_STEPS {
        seen.now = Timestamp::now();
        let Plan { step, status } = plan(&seen);
        tracing::debug!(action = %action.name_any(), ?step, "next");
        last = format!("{step:?}");
        match step {
            Step::Wait(None) => return Ok(Action::await_change()),
            Step::Wait(Some(wait)) => return Ok(Action::requeue(wait)),
            Step::Retry(message) => return Err(Error::Refused(message)),
            Step::Resolve => seen.resolved = Some(reference::resolve(&seen.action, context).await?),
            Step::ReadLog { pod } => seen.log = Some(look::log(&seen.action, &pod, context).await),
            Step::ReadNetwork { node } => seen.network = Some(look::networks(&node, context).await),
            Step::Deliver { index } => {
                let answer = reference::deliver(&seen.action, index, context).await?;
                seen.delivery = Some((index, answer));
            }
            Step::Push { address, entries } => {
                seen.push = Some(reference::push(&address, &entries, context).await);
            }
            Step::Write(writes) => {
                let is_last = writes.contains(&Write::Finalizer(false));
                write::all(&mut seen, &writes, &status, context).await?;
                if is_last {
                    return Ok(Action::await_change());
                }
            }
        }
    }
    last.truncate(last.floor_char_boundary(300));
    Err(Error::Endless(last))
}

impl Observed {
    /// A flow of which nothing was seen yet but the custom resource.
    #[must_use]
    pub fn new(action: OffloadedAction, settings: Settings) -> Self {
        Self {
            action,
            settings,
            now: Timestamp::now(),
            jobs: std::collections::BTreeMap::new(),
            pods: Vec::new(),
            service: None,
            resolved: None,
            log: None,
            network: None,
            delivery: None,
            push: None,
            rejection: None,
        }
    }
}
