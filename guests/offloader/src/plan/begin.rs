//! Starting a Job: the first one of a flow, one after the flow has ended, or one beside the Job that runs.

use wasm_operator_sdk::conditions;

use super::{Notice, Observed, Plan, Refusal, Step, has_ended};
use crate::api::{OffloadedActionStatus, Phase, PreviousRun, condition, reason};
use crate::openwhisk::Resolution;
use crate::{children, ids};

/// What comes of an attempt to start a Job.
pub(super) enum Begin {
    /// This is to be done.
    Step(Box<Plan>),
    /// It cannot be started now; whatever runs goes on. Worth another attempt without a change.
    Refused(String),
}

/// Whether the spec asks for another Job than there is.
pub(super) fn is_due(seen: &Observed) -> bool {
    let status = seen.status();
    let wanted = ids::template(&seen.action.spec);
    let is_new = status.template.as_ref() != Some(&wanted) && status.rejected_template.as_ref() != Some(&wanted);
    // A suspended flow is not started; one that runs goes on to be stopped by its Job.
    is_new && !seen.action.spec.suspend && !is_refused_for_good(seen, &status)
}

/// A refusal that was recorded in this very call: there is nothing more to do about it.
fn is_refused_for_good(seen: &Observed, status: &OffloadedActionStatus) -> bool {
    let Some(Err(refusal)) = &seen.resolved else { return false };
    !refusal.transient && is_recorded(seen, status, refusal)
}

fn is_recorded(seen: &Observed, status: &OffloadedActionStatus, refusal: &Refusal) -> bool {
    conditions::get(&status.conditions, condition::ACTION_RESOLVED).is_some_and(|known| {
        known.status == "False"
            && known.reason == refusal.reason
            && known.message == refusal.message
            && known.observed_generation == seen.generation()
    })
}

pub(super) fn plan(seen: &Observed) -> Begin {
    let status = seen.status();
    match &seen.resolved {
        None => Begin::Step(Box::new(Plan::only(seen, Step::Resolve))),
        Some(Err(refusal)) if is_recorded(seen, &status, refusal) => Begin::Refused(refusal.message.clone()),
        Some(Err(refusal)) => Begin::Step(Box::new(refuse(seen, status, refusal))),
        Some(Ok(resolution)) => Begin::Step(Box::new(start(seen, status, resolution))),
    }
}

/// A flow that has no Job and gets none now.
pub(super) fn idle(seen: &Observed) -> Plan {
    let mut status = seen.status();
    if seen.action.spec.suspend {
        status.phase = Phase::Pending;
        seen.set(&mut status, condition::READY, false, reason::SUSPENDED, "`spec.suspend` is set");
        status.observed_generation = seen.generation();
    }
    if status == seen.status() { Plan::only(seen, Step::Wait(None)) } else { Plan::record(status, None) }
}

fn refuse(seen: &Observed, mut status: OffloadedActionStatus, refusal: &Refusal) -> Plan {
    if status.job_id.is_none() {
        status.phase = Phase::Resolving;
    }
    status.flow_id = Some(ids::flow_id(&seen.action));
    seen.set(&mut status, condition::ACTION_RESOLVED, false, refusal.reason, &refusal.message);
    Plan::record(status, [Notice::warning(refusal.reason, &refusal.message)])
}

/// The one write that decides on a Job: everything after it follows from the status.
fn start(seen: &Observed, mut status: OffloadedActionStatus, resolution: &Resolution) -> Plan {
    let spec = &seen.action.spec;
    let job_id = ids::job_id(&seen.action);
    let ended = has_ended(&status);
    let mut message = format!("image `{}`", resolution.image);
    match status.job_id.take() {
        Some(current) if !ended => {
            if status.previous_job_id.is_none() {
                status.previous = Some(PreviousRun {
                    template: status.template.take().unwrap_or_default(),
                    resolved_image: status.resolved_image.take(),
                    kind: status.kind.take(),
                    main: status.main.take(),
                    placement: status.placement.take(),
                    start_time: status.start_time.take(),
                });
                status.previous_job_id = Some(current);
            } else {
                // The new pod of an earlier change, which has not taken over yet.
                status.removing.push(current);
            }
            status.phase = Phase::Reconfiguring;
            status.reconfigure_time = Some(seen.time());
            let text = format!("Job `{}` is being started", ids::job_name(&job_id));
            seen.set(&mut status, condition::RECONFIGURED, false, reason::IN_PROGRESS, &text);
            message = format!("reconfiguring: {message}");
        }
        current => {
            status.removing.extend(current);
            forget_the_end(&mut status);
            status.phase = Phase::Starting;
        }
    }
    status.flow_id = Some(ids::flow_id(&seen.action));
    status.job_id = Some(job_id);
    status.template = Some(ids::template(spec));
    status.rejected_template = None;
    status.resolved_image = Some(resolution.image.clone());
    status.kind.clone_from(&resolution.kind);
    status.main.clone_from(&resolution.main);
    status.placement = Some(spec.placement.clone().unwrap_or_else(|| resolution.placement.clone()));
    // The side container begins with the ConfigMap.
    status.pushed_conf = super::run::conf_digests(&seen.action);
    seen.set(&mut status, condition::ACTION_RESOLVED, true, reason::RESOLVED, &message);
    Plan::record(status, [Notice::normal(reason::RESOLVED, message)])
}

/// What an earlier Job of the flow left.
fn forget_the_end(status: &mut OffloadedActionStatus) {
    let fresh = OffloadedActionStatus {
        observed_generation: status.observed_generation,
        removing: std::mem::take(&mut status.removing),
        service: status.service.take(),
        ..OffloadedActionStatus::default()
    };
    let mut kept = std::mem::take(&mut status.conditions);
    kept.retain(|known| known.type_ == condition::SERVICE_READY || known.type_ == condition::CONF_APPLIED);
    *status = OffloadedActionStatus { conditions: kept, ..fresh };
}

/// The Job that the Service leads to.
pub(super) fn serving(status: &OffloadedActionStatus) -> Option<&String> {
    status.previous_job_id.as_ref().or(status.job_id.as_ref())
}

/// The name of the container whose state counts.
pub(super) const CONTAINER: &str = children::ACTION_CONTAINER;
