//! Whether a target answers: asked when it is created or changed, and again while it does not.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use wasm_operator_sdk::{Action, conditions};

use super::reference::connect;
use super::{Context, Error};
use crate::api::{GROUP, OffloadTarget, condition, reason};

/// The wait before a target that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// Called for each `OffloadTarget` when its spec changes.
pub(crate) async fn reconcile(target: Arc<OffloadTarget>, context: Arc<Context>) -> Result<Action, Error> {
    if target.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (holds, why, message) = ask(&target, &context).await?;
    let mut status = target.status.clone().unwrap_or_default();
    status.observed_generation = target.metadata.generation;
    let condition = conditions::condition(condition::REACHABLE, holds, why, &message, target.metadata.generation);
    conditions::set(&mut status.conditions, condition);
    if target.status.as_ref() != Some(&status) {
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadTarget",
            "metadata": {"name": target.name_any()}, "status": status,
        });
        let api: Api<OffloadTarget> = Api::namespaced(context.client.clone(), &target.namespace().unwrap_or_default());
        let params = PatchParams { force: true, ..PatchParams::default() };
        match api.patch_status(&target.name_any(), &params, &Patch::Apply(patch)).await {
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.map_err(Error::to("write the status of the target"))?),
        }
    }
    Ok(if holds { Action::await_change() } else { Action::requeue(ASK_AGAIN) })
}

async fn ask(target: &OffloadTarget, context: &Context) -> Result<(bool, &'static str, String), Error> {
    let connection = match connect(&target.namespace().unwrap_or_default(), &target.spec, context).await? {
        Ok(target) => target.connection,
        Err(refusal) => return Ok((false, refusal.reason, refusal.message)),
    };
    Ok(match connection.namespaces().await {
        Ok(reply) if matches!(reply.status.as_u16(), 401 | 403) => (false, reason::UNAUTHORIZED, reply.message()),
        // OpenWhisk looks at the key first: whatever else it says, it has accepted it.
        Ok(reply) if reply.status.as_u16() < 500 => (true, reason::REACHABLE, "OpenWhisk accepts the key".to_owned()),
        Ok(reply) => (false, reason::UNREACHABLE, reply.message()),
        Err(error) => (false, reason::UNREACHABLE, error.to_string()),
    })
}

/// What becomes of an error: the host tries again with a growing delay.
pub(crate) fn error_policy(_: Arc<OffloadTarget>, _: &Error, _: Arc<Context>) -> Action {
    Action::retry()
}
