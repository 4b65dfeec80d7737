//! A flow with a Job: its objects are brought about, watched, and kept as the spec wants them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use wasm_operator_sdk::conditions;

use super::begin::serving;
use super::observe::{self, Ending};
use super::swap::{self, Swap};
use super::{Notice, Observed, Plan, Rejection, Step, Write, finish, remove, sooner};
use crate::api::{OffloadedAction, OffloadedActionSpec, OffloadedActionStatus, Phase, condition, reason};
use crate::{children, ids};

/// The part of the time limit after which is warned, in per cent.
const WARN_AT_PERCENT: i64 = 90;

pub(super) fn plan(seen: &Observed, job_id: &str) -> Plan {
    missing(seen, job_id)
        .or_else(|| service(seen))
        .or_else(|| remove::plan(seen))
        .or_else(|| drift(seen))
        .or_else(|| sync(seen))
        .unwrap_or_else(|| progress(seen, job_id))
}

/// The Job, and what its pod needs to start.
fn missing(seen: &Observed, job_id: &str) -> Option<Plan> {
    if seen.jobs.contains_key(job_id) {
        return None;
    }
    let mut writes = Vec::new();
    if seen.action.spec.runtime_conf.is_some() {
        writes.push(Write::Conf);
    }
    if seen.action.spec.network_policy.is_some() {
        writes.push(Write::Policy);
    }
    writes.push(Write::Run(job_id.to_owned()));
    Some(Plan::only(seen, Step::Write(writes)))
}

/// The Service, which leads to the Job that the status names.
fn service(seen: &Observed) -> Option<Plan> {
    let status = seen.status();
    let serving = serving(&status)?;
    match (children::flow_service(&seen.action, serving, &seen.settings), &seen.service) {
        // It is being deleted by somebody; its deletion is an event.
        (_, Some(there)) if there.metadata.deletion_timestamp.is_some() => None,
        (Some(wanted), Some(there)) if children::service_matches(&wanted, there) => None,
        (Some(_), _) if is_refused(seen, &status, condition::SERVICE_READY) => None,
        (Some(_), _) => Some(Plan::only(seen, Step::Write(vec![Write::Service(serving.clone())]))),
        (None, Some(_)) => Some(Plan::only(seen, Step::Write(vec![Write::DeleteService]))),
        (None, None) => None,
    }
}

/// Whether the API server refused this for the very spec that there is.
fn is_refused(seen: &Observed, status: &OffloadedActionStatus, type_: &str) -> bool {
    conditions::get(&status.conditions, type_).is_some_and(|known| {
        known.reason == reason::CREATE_REJECTED && known.observed_generation == seen.action.metadata.generation
    })
}

/// What of a Job may change while it runs.
fn drift(seen: &Observed) -> Option<Plan> {
    let status = seen.status();
    let ids = [status.job_id.as_ref(), status.previous_job_id.as_ref()];
    let differing = ids.into_iter().flatten().find(|id| {
        let job = seen.jobs.get(*id).filter(|job| observe::ending(job).is_none());
        job.is_some_and(|job| job_patch(job, &seen.action.spec).is_some())
    })?;
    Some(Plan::only(seen, Step::Write(vec![Write::Job(differing.clone())])))
}

/// The merge patch that brings a Job up to date; none: it is.
#[must_use]
pub fn job_patch(job: &Job, spec: &OffloadedActionSpec) -> Option<Value> {
    let there = job.spec.as_ref()?;
    let deadline = (spec.time_limit_seconds > 0).then_some(spec.time_limit_seconds);
    let same = there.active_deadline_seconds == deadline
        && there.backoff_limit.unwrap_or_default() == spec.backoff_limit
        && there.suspend.unwrap_or_default() == spec.suspend;
    (!same).then(|| {
        json!({"spec": {
            "activeDeadlineSeconds": deadline, "backoffLimit": spec.backoff_limit, "suspend": spec.suspend,
        }})
    })
}

/// What changes without a new pod, once per generation of the spec.
fn sync(seen: &Observed) -> Option<Plan> {
    let mut status = seen.status();
    let generation = seen.action.metadata.generation;
    if status.observed_generation == generation {
        return None;
    }
    status.observed_generation = generation;
    if status.template.as_ref() == Some(&ids::template(&seen.action.spec)) {
        // The change that was rolled back was taken back.
        status.rejected_template = None;
    }
    let mut writes = vec![Write::Conf, Write::Policy, Write::Status];
    if generation == Some(1) {
        // Nothing of an earlier spec can be there, and what this one wants was made with the Job.
        writes.retain(|write| *write == Write::Status);
    }
    if seen.action.spec.runtime_conf.is_some() {
        seen.set(&mut status, condition::CONF_APPLIED, true, reason::APPLIED, "`runtimeConf` is in the ConfigMap");
    } else {
        conditions::remove(&mut status.conditions, condition::CONF_APPLIED);
    }
    Some(Plan { step: Step::Write(writes), status })
}

/// What time and the cluster bring.
fn progress(seen: &Observed, job_id: &str) -> Plan {
    if let Some(node) = observe::unknown_network(seen) {
        return Plan::only(seen, Step::ReadNetwork { node });
    }
    let status = observe::observe(seen);
    if status != seen.status() {
        let events = news(&seen.status(), &status);
        return Plan::record(status, events);
    }
    let mut wait = None;
    if let Some((job_id, previous)) = swap::under_way(&status) {
        match swap::plan(seen, &job_id, &previous) {
            Swap::Decided(plan) => return *plan,
            Swap::Pending(left) => wait = left,
        }
    } else if let Some(ending) = seen.jobs.get(job_id).and_then(observe::ending) {
        return end(seen, job_id, ending);
    }
    if let Some(plan) = push(seen) {
        return plan;
    }
    match deadline(seen) {
        Due::Now(plan) => *plan,
        Due::In(left) => Plan::only(seen, Step::Wait(sooner(wait, left))),
    }
}

/// What of a new status a user should hear of.
fn news(before: &OffloadedActionStatus, after: &OffloadedActionStatus) -> Vec<Write> {
    let mut events = Vec::new();
    for type_ in [condition::SCHEDULED, condition::FAILED, condition::READY] {
        let (old, new) = (conditions::get(&before.conditions, type_), conditions::get(&after.conditions, type_));
        let Some(new) = new.filter(|new| old.is_none_or(|old| old.reason != new.reason)) else { continue };
        let known = reason::ALL.iter().find(|known| **known == new.reason).copied();
        let notice: Option<fn(&'static str, String) -> Write> = match (type_, new.status.as_str()) {
            (condition::SCHEDULED, "False") | (condition::FAILED, "True") => Some(Notice::warning),
            (condition::READY, "False") if new.reason == reason::EVICTED => Some(Notice::warning),
            (condition::READY, "True") => Some(Notice::normal),
            _ => None,
        };
        events.extend(known.zip(notice).map(|(known, notice)| notice(known, new.message.clone())));
    }
    events
}

/// The action has ended: what it wrote is kept before anybody is told.
fn end(seen: &Observed, job_id: &str, ending: Ending) -> Plan {
    if let (None, Some(pod)) = (&seen.log, observe::ended_pod(seen, job_id)) {
        return Plan::only(seen, Step::ReadLog { pod });
    }
    let mut status = seen.status();
    status.completion_time = Some(seen.time());
    status.log_tail = seen.log.clone().filter(|log| !log.is_empty());
    status.result = seen.log.as_deref().and_then(result_of);
    status.deliveries = finish::endpoints(&seen.action);
    let event = match observe::explain(seen, job_id, ending) {
        Ending::Succeeded => {
            status.phase = Phase::Succeeded;
            seen.set(&mut status, condition::FAILED, false, reason::SUCCEEDED, "the action ended well");
            Notice::normal(reason::SUCCEEDED, "the action ended well")
        }
        Ending::Failed { reason, message } => {
            status.phase = Phase::Failed;
            seen.set(&mut status, condition::FAILED, true, reason, &message);
            Notice::warning(reason, message)
        }
    };
    pending(seen, &mut status);
    Plan::record(status, [event])
}

fn pending(seen: &Observed, status: &mut OffloadedActionStatus) {
    seen.set(status, condition::READY, false, reason::NOT_RUNNING, "the action has ended");
    if !status.deliveries.is_empty() {
        let message = format!("{} endpoints are to be called", status.deliveries.len());
        seen.set(status, condition::COMPLETION_DELIVERED, false, reason::PENDING, &message);
    }
}

/// OpenWhisk's rule: the last line of the output is the result, if it is a JSON object.
fn result_of(log: &str) -> Option<Value> {
    let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
    serde_json::from_str::<Value>(line).ok().filter(Value::is_object)
}

/// The API server refuses an object, and would refuse it again.
pub(super) fn rejected(seen: &Observed, rejection: &Rejection) -> Plan {
    let mut status = seen.status();
    let message = &rejection.message;
    let is_new = status.job_id.as_ref().is_some_and(|id| !seen.jobs.contains_key(id));
    match &rejection.write {
        Write::Service(_) => {
            seen.set(&mut status, condition::SERVICE_READY, false, reason::CREATE_REJECTED, message);
        }
        Write::Conf | Write::Policy if !is_new => {
            status.observed_generation = seen.action.metadata.generation;
            seen.set(&mut status, condition::CONF_APPLIED, false, reason::CREATE_REJECTED, message);
        }
        _ if status.previous_job_id.is_some() => return swap::roll_back(seen, message),
        _ => {
            status.phase = Phase::Failed;
            status.completion_time = Some(seen.time());
            status.observed_generation = seen.action.metadata.generation;
            status.removing.extend(status.job_id.clone());
            status.deliveries = finish::endpoints(&seen.action);
            seen.set(&mut status, condition::FAILED, true, reason::CREATE_REJECTED, message);
            pending(seen, &mut status);
        }
    }
    Plan::record(status, [Notice::warning(reason::CREATE_REJECTED, message)])
}

enum Due {
    Now(Box<Plan>),
    In(Option<Duration>),
}

/// The warning before the deadline. The deadline itself is the Job's own.
fn deadline(seen: &Observed) -> Due {
    let mut status = seen.status();
    let limit = seen.action.spec.time_limit_seconds;
    let (Some(start), Some(job_id)) = (&status.start_time, serving(&status).cloned()) else { return Due::In(None) };
    if limit == 0 || status.warned_job_id.as_ref() == Some(&job_id) {
        return Due::In(None);
    }
    let warn_after = SignedDuration::from_millis(limit.saturating_mul(WARN_AT_PERCENT * 10));
    let due = start.0.checked_add(warn_after).unwrap_or(start.0);
    let left = due.duration_since(seen.now);
    if left.is_positive() {
        return Due::In(Some(left.unsigned_abs()));
    }
    status.warned_job_id = Some(job_id);
    let message = format!("{WARN_AT_PERCENT} % of the time limit of {limit} s are over");
    Due::Now(Box::new(Plan::record(status, [Notice::warning(reason::DEADLINE_APPROACHING, message)])))
}

/// Digests of the runtime configuration, by entry.
pub(super) fn conf_digests(action: &OffloadedAction) -> BTreeMap<String, String> {
    let entries = action.spec.runtime_conf.iter().flatten();
    entries.map(|(name, value)| (name.clone(), ids::digest_of(value))).collect()
}

/// The runtime configuration at once, where that is wanted and the side container can be reached.
fn push(seen: &Observed) -> Option<Plan> {
    let mut status = seen.status();
    let wanted = conf_digests(&seen.action);
    let is_running = status.phase == Phase::Running;
    if !seen.action.spec.push_conf || !is_running || status.pushed_conf == wanted {
        return None;
    }
    match &seen.push {
        None => {
            let address = format!("{}:{}", status.pod_ip.as_ref()?, seen.settings.conf_port);
            let changed = |name: &&String| status.pushed_conf.get(*name) != wanted.get(*name);
            let all = seen.action.spec.runtime_conf.iter().flatten();
            let entries = all.filter(|(name, _)| changed(name)).map(|(name, value)| (name.clone(), value.clone()));
            Some(Plan::only(seen, Step::Push { address, entries: entries.collect() }))
        }
        Some(Ok(())) => {
            status.pushed_conf = wanted;
            seen.set(&mut status, condition::CONF_APPLIED, true, reason::APPLIED, "`runtimeConf` was pushed");
            Some(Plan::record(status, None))
        }
        Some(Err(why)) => {
            seen.set(&mut status, condition::CONF_APPLIED, false, reason::PUSH_FAILED, why);
            let is_known = status == seen.status();
            let retry = Plan::only(seen, Step::Retry(why.clone()));
            Some(if is_known { retry } else { Plan::record(status, [Notice::warning(reason::PUSH_FAILED, why)]) })
        }
    }
}
