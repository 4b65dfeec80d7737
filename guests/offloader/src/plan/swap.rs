//! A new Job beside the one that runs: it takes over once its pod is ready, or goes.
//!
//! `previousJobID` serves until the new pod is ready. Then one write of the status makes the new Job the only one; the
//! Service follows the status, and the old Job is deleted only after the Service was seen to lead elsewhere.

use std::time::Duration;

use super::observe::{Ending, ending, is_ready, pod_of};
use super::{Notice, Observed, Plan};
use crate::api::{OffloadedActionStatus, Phase, condition, reason};
use crate::ids;

/// What comes of a reconfiguration that is under way.
pub(super) enum Swap {
    /// It is decided.
    Decided(Box<Plan>),
    /// Not before so long.
    Pending(Option<Duration>),
}

pub(super) fn plan(seen: &Observed, job_id: &str, previous: &str) -> Swap {
    let ready = pod_of(seen, job_id).is_some_and(is_ready);
    let old_is_gone = match seen.jobs.get(previous) {
        None => true,
        Some(job) => job.metadata.deletion_timestamp.is_some() || ending(job).is_some(),
    };
    if ready || old_is_gone {
        return Swap::Decided(Box::new(commit(seen, previous)));
    }
    if let Some(Some(Ending::Failed { message, .. })) = seen.jobs.get(job_id).map(ending) {
        return Swap::Decided(Box::new(roll_back(seen, &format!("the new Job failed: {message}"))));
    }
    let timeout = seen.action.spec.reconfigure_timeout_seconds;
    let status = seen.status();
    let left = status.reconfigure_time.as_ref().map_or(Duration::ZERO, |start| seen.until(start, timeout));
    if left.is_zero() {
        let why = pod_of(seen, job_id).and_then(super::observe::trouble);
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return Swap::Decided(Box::new(roll_back(seen, &format!("the new pod was not ready within {timeout} s{why}"))));
    }
    Swap::Pending(Some(left))
}

fn commit(seen: &Observed, previous: &str) -> Plan {
    let mut status = seen.status();
    status.previous = None;
    status.previous_job_id = None;
    status.reconfigure_time = None;
    status.removing.push(previous.to_owned());
    status.phase = Phase::Starting;
    let message = format!("Job `{}` has taken over", ids::job_name(status.job_id.as_deref().unwrap_or_default()));
    seen.set(&mut status, condition::RECONFIGURED, true, reason::SWITCHED, &message);
    Plan::record(status, [Notice::normal(reason::SWITCHED, message)])
}

/// Back to the old Job, which served all the time.
pub(super) fn roll_back(seen: &Observed, why: &str) -> Plan {
    let mut status = seen.status();
    let previous = status.previous.take().unwrap_or_default();
    status.removing.extend(status.job_id.take());
    status.job_id = status.previous_job_id.take();
    status.reconfigure_time = None;
    status.rejected_template = status.template.replace(previous.template);
    status.resolved_image = previous.resolved_image;
    status.kind = previous.kind;
    status.main = previous.main;
    status.placement = previous.placement;
    status.start_time = previous.start_time;
    status.phase = Phase::Starting;
    seen.set(&mut status, condition::RECONFIGURED, false, reason::TIMED_OUT, why);
    Plan::record(status, [Notice::warning(reason::ROLLED_BACK, format!("the old pod stays: {why}"))])
}

/// Whether two Jobs of the flow run at the moment.
pub(super) fn under_way(status: &OffloadedActionStatus) -> Option<(String, String)> {
    Some((status.job_id.clone()?, status.previous_job_id.clone()?))
}
