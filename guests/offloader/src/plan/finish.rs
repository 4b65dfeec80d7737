//! After the end of an action: completion endpoints are told, and what is left is removed in time.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Notice, Observed, Plan, Step, Write, remove, sooner};
use crate::api::{Delivery, OffloadedAction, Phase, condition, reason};
use crate::openwhisk;

/// Calls of an endpoint before it is given up: with waits of up to five minutes, an hour and a half.
const MOST_ATTEMPTS: u32 = 24;

/// What is to be done about completion endpoints.
pub(super) enum Due {
    /// This, now.
    Plan(Box<Plan>),
    /// Nothing before so long; none: nothing at all.
    Wait(Option<Duration>),
}

pub(super) fn plan(seen: &Observed) -> Plan {
    if let Some(plan) = remove::plan(seen) {
        return plan;
    }
    let mut wait = match deliveries(seen, MOST_ATTEMPTS) {
        Due::Plan(plan) => return *plan,
        Due::Wait(left) => left,
    };
    match time_to_live(seen) {
        Some(Duration::ZERO) => {
            let job_id = seen.status().job_id.unwrap_or_default();
            // The Job last: as long as it is there, the rest may be.
            return Plan::only(seen, Step::Write(vec![Write::DeleteFlow, Write::DeleteRun(job_id)]));
        }
        left => wait = sooner(wait, left),
    }
    let mut status = seen.status();
    status.observed_generation = seen.generation();
    if status == seen.status() { Plan::only(seen, Step::Wait(wait)) } else { Plan::record(status, None) }
}

/// How long until what is left of the action is removed; none: it stays, or is gone.
fn time_to_live(seen: &Observed) -> Option<Duration> {
    let status = seen.status();
    let spec = &seen.action.spec;
    let kept = status.phase == Phase::Failed && spec.keep_failed;
    let is_left = seen.jobs.values().any(|job| job.metadata.deletion_timestamp.is_none()) || seen.service.is_some();
    let end = status.completion_time.as_ref().filter(|_| !kept && is_left)?;
    Some(seen.until(end, spec.ttl_seconds_after_finished))
}

/// The endpoints that are to be told of the end.
pub(super) fn endpoints(action: &OffloadedAction) -> Vec<Delivery> {
    let Some(completion) = &action.spec.completion else { return Vec::new() };
    let triggers = completion.triggers.iter().map(|name| format!("triggers:{name}"));
    let actions = completion.actions.iter().map(|name| format!("actions:{name}"));
    let mut deliveries: Vec<Delivery> = Vec::new();
    for endpoint in triggers.chain(actions) {
        if deliveries.iter().all(|known| known.endpoint != endpoint) {
            deliveries.push(Delivery { endpoint, ..Delivery::default() });
        }
    }
    deliveries
}

/// The next call of an endpoint, or what the last one came to.
pub(super) fn deliveries(seen: &Observed, most_attempts: u32) -> Due {
    let status = seen.status();
    if let Some((index, answer)) = &seen.delivery {
        return Due::Plan(Box::new(record(seen, *index, answer, most_attempts)));
    }
    let mut wait = None;
    for (index, delivery) in status.deliveries.iter().enumerate() {
        if delivery.delivered.is_some() || delivery.attempts >= most_attempts {
            continue;
        }
        let left = delivery.next_attempt.as_ref().map_or(Duration::ZERO, |due| seen.until(due, 0));
        if left.is_zero() {
            return Due::Plan(Box::new(Plan::only(seen, Step::Deliver { index })));
        }
        wait = sooner(wait, Some(left));
    }
    Due::Wait(wait)
}

fn record(seen: &Observed, index: usize, answer: &Result<(), String>, most_attempts: u32) -> Plan {
    let mut status = seen.status();
    let mut events = Vec::new();
    if let Some(delivery) = status.deliveries.get_mut(index) {
        delivery.attempts = delivery.attempts.saturating_add(1);
        match answer {
            Ok(()) => {
                delivery.delivered = Some(seen.time());
                delivery.next_attempt = None;
            }
            Err(why) => {
                let wait = openwhisk::backoff(delivery.attempts);
                let due = seen.now.checked_add(wait).unwrap_or(seen.now);
                delivery.next_attempt = Some(Time(due));
                let message = format!("`{}` was called {} times: {why}", delivery.endpoint, delivery.attempts);
                events.push(Notice::warning("CompletionRetry", message));
            }
        }
    }
    let open = status.deliveries.iter().filter(|delivery| delivery.delivered.is_none());
    let given_up = open.clone().filter(|delivery| delivery.attempts >= most_attempts).count();
    let (open, all) = (open.count(), status.deliveries.len());
    let message = format!("{} of {all} endpoints have acknowledged", all - open);
    if open == 0 {
        seen.set(&mut status, condition::COMPLETION_DELIVERED, true, reason::DELIVERED, &message);
    } else if given_up == open {
        seen.set(&mut status, condition::COMPLETION_DELIVERED, false, reason::GAVE_UP, &message);
    } else {
        seen.set(&mut status, condition::COMPLETION_DELIVERED, false, reason::PENDING, &message);
    }
    Plan::record(status, events)
}
