//! The custom resource is being deleted: the action is stopped, and OpenWhisk is told before the finalizer goes.
//! Everything else belongs to the custom resource and goes with it.

use super::finish::{self, Due};
use super::{Notice, Observed, Plan, Step, Write, has_ended};
use crate::api::{Phase, condition, reason};

/// Calls of an endpoint before a deletion goes on without it: half a minute of growing waits.
const MOST_ATTEMPTS: u32 = 6;

pub(super) fn plan(seen: &Observed) -> Plan {
    let status = seen.status();
    if status.phase != Phase::Deleting {
        return announce(seen);
    }
    let running: Vec<Write> = seen
        .jobs
        .iter()
        .filter(|(_, job)| job.metadata.deletion_timestamp.is_none())
        .map(|(id, _)| Write::DeleteJob(id.clone()))
        .collect();
    if !running.is_empty() {
        return Plan::only(seen, Step::Write(running));
    }
    match finish::deliveries(seen, MOST_ATTEMPTS) {
        Due::Plan(plan) => *plan,
        Due::Wait(left @ Some(_)) => Plan::only(seen, Step::Wait(left)),
        Due::Wait(None) => {
            let told = status.deliveries.iter().all(|delivery| delivery.delivered.is_some());
            let mut writes = Vec::new();
            if !told {
                let message = "a completion endpoint was not told of the deletion: it refused all calls";
                writes.push(Notice::warning(reason::GAVE_UP, message));
            }
            writes.push(Write::Finalizer(false));
            Plan::only(seen, Step::Write(writes))
        }
    }
}

fn announce(seen: &Observed) -> Plan {
    let mut status = seen.status();
    let ran = status.job_id.is_some() && !has_ended(&status);
    status.phase = Phase::Deleting;
    if ran {
        status.completion_time = Some(seen.time());
        status.deliveries = finish::endpoints(&seen.action);
        let message = "the custom resource was deleted while the action ran";
        seen.set(&mut status, condition::FAILED, true, reason::CANCELLED, message);
    }
    // A delivery that is waiting for its next call gets it now: nobody comes back later.
    for delivery in &mut status.deliveries {
        delivery.next_attempt = None;
    }
    Plan::record(status, None)
}
