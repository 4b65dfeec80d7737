//! Removing Jobs that the status no longer needs.

use wasm_operator_sdk::conditions;

use super::{Observed, Plan, Step, Write, has_ended};
use crate::api::{condition, reason};

/// The next step towards removing a Job, if one can be taken now.
pub(super) fn plan(seen: &Observed) -> Option<Plan> {
    let status = seen.status();
    let next = status.removing.iter().find_map(|id| match seen.jobs.get(id) {
        // Its pods are ending; its deletion is an event.
        Some(job) if job.metadata.deletion_timestamp.is_some() => None,
        found => Some((id.clone(), found.is_some())),
    })?;
    let (id, exists) = next;
    if exists {
        return Some(Plan::only(seen, Step::Write(vec![Write::DeleteRun(id)])));
    }
    // The Job is gone or was never made. Its Secret may be there all the same.
    let mut writes = vec![Write::DeleteRun(id.clone())];
    let mut after = status;
    after.removing.retain(|known| *known != id);
    if has_ended(&after) && after.job_id.as_ref() == Some(&id) {
        writes.push(Write::DeleteFlow);
    }
    let timed_out = conditions::get(&after.conditions, condition::RECONFIGURED)
        .filter(|known| known.reason == reason::TIMED_OUT)
        .map(|known| known.message.clone());
    if let Some(message) = timed_out.filter(|_| after.removing.is_empty()) {
        seen.set(&mut after, condition::RECONFIGURED, false, reason::ROLLED_BACK, &message);
    }
    writes.push(Write::Status);
    Some(Plan { step: Step::Write(writes), status: after })
}
