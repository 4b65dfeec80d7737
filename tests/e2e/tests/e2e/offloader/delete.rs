//! Deleting flows.

use harness::{Result, ensure, test_with_nodes, until_object};
use kube::api::DeleteParams;
use openwhisk::{Action, Behaviour, Request};
use serde_json::json;

use super::stage::{GUEST, Stage, looked_up};

// OFF-30
#[test]
fn deletion_wakes_the_guest_tells_openwhisk_and_leaves_no_orphans() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        whisk.trigger("/guest/t1")?;
        let mut spec = looked_up("/guest/ping");
        spec["completion"] = json!({"triggers": ["/guest/t1"]});
        spec["runtimeConf"] = json!({"a": "b"});
        spec["networkPolicy"] = json!({"ingressFrom": [{"podSelector": {}}]});
        let flow_id = stage.offload("ping", spec).await?;
        stage.until_phase("ping", "Running").await?;
        stage.until_counts("everything is there", [1, 1, 1, 1, 1, 1]).await?;
        stage.host.until_asleep(GUEST).await?;

        stage.flows().delete("ping", &DeleteParams::default()).await?;
        until_object(&stage.flows(), "ping", "the flow is gone", |flow| flow.is_none()).await?;
        stage.until_counts("nothing is left", [0; 6]).await?;
        let told = whisk.wait_for(1, "the cancellation is told", Request::is_accepted).await?;
        let body = told[0].json();
        ensure!(body["error"].as_str().unwrap_or_default().starts_with("Cancelled"), "{body}");
        assert_eq!(body["activationId"], flow_id.as_str());
        Ok(())
    })
}

#[test]
fn a_flow_that_ended_and_was_told_goes_without_another_call() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.trigger("/guest/t1")?;
        let spec = json!({
            "action": "/guest/ping", "image": "simulated.invalid/completes:100ms", "targetRef": {"name": "whisk"},
            "completion": {"triggers": ["/guest/t1"]},
        });
        stage.offload("ping", spec).await?;
        stage.until_condition("ping", "CompletionDelivered", "True", "Delivered").await?;
        stage.flows().delete("ping", &DeleteParams::default()).await?;
        until_object(&stage.flows(), "ping", "the flow is gone", |flow| flow.is_none()).await?;
        let calls: Vec<_> =
            whisk.requests().into_iter().filter(|request| request.line().contains("/triggers/")).collect();
        assert_eq!(calls.len(), 1, "{calls:#?}");
        Ok(())
    })
}

#[test]
fn an_endpoint_that_never_answers_does_not_hold_up_a_deletion_for_ever() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        let spec = json!({
            "action": "/guest/ping", "image": "i:1", "targetRef": {"name": "whisk"}, "completion": {"triggers": ["/guest/t1"]},
        });
        whisk.always("POST /api/v1/namespaces/guest/triggers/t1", Behaviour::Status(500));
        stage.offload("ping", spec).await?;
        stage.until_phase("ping", "Running").await?;
        stage.flows().delete("ping", &DeleteParams::default()).await?;
        until_object(&stage.flows(), "ping", "the flow is gone", |flow| flow.is_none()).await?;
        stage.until_counts("nothing is left", [0; 6]).await
    })
}
