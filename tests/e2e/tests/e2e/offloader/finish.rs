//! The end of an action: deadlines, failures, results, and who is told.

use harness::{Context as _, Result, ensure, eventually, test_with_nodes};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use openwhisk::{Action, Behaviour, Request};
use serde_json::{Value, json};

use super::stage::{Stage, looked_up, text};

const TRIGGER: &str = "POST /api/v1/namespaces/guest/triggers/t1";

fn ending(image: &str) -> Value {
    json!({"action": "/guest/ping", "image": image, "service": {"type": "None"}, "targetRef": {"name": "whisk"}})
}

/// The reasons of the events about flows, with how often each happened.
async fn events(stage: &Stage<'_>) -> Result<Vec<(String, i32)>> {
    let events = stage.api::<Event>().list(&ListParams::default()).await?.items;
    let of_flows = events.into_iter().filter(|event| event.involved_object.kind.as_deref() == Some("OffloadedAction"));
    Ok(of_flows
        .map(|event| (event.reason.unwrap_or_default(), event.series.and_then(|series| series.count).unwrap_or(1)))
        .collect())
}

// OFF-27
#[test]
fn a_refusing_endpoint_is_called_until_it_acknowledges_once() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.trigger("/guest/t1")?;
        whisk.script(TRIGGER, [Behaviour::Status(503), Behaviour::Status(503)]);
        space.set_container_log(&stage.namespace, "ow-action", &["starting", r#"{"sum": 3}"#]).await?;
        let mut spec = ending("simulated.invalid/completes:300ms");
        spec["completion"] = json!({"triggers": ["/guest/t1"]});
        spec["activationID"] = "a1".into();
        let flow_id = stage.offload("sum", spec).await?;
        stage.until_condition("sum", "CompletionDelivered", "True", "Delivered").await?;

        let of_trigger = |request: &Request| request.line() == TRIGGER;
        let calls: Vec<Request> = whisk.requests().into_iter().filter(of_trigger).collect();
        assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [Some(503), Some(503), Some(202)]);
        for call in &calls {
            assert_eq!(call.header("idempotency-key"), flow_id);
            let body = call.json();
            assert_eq!((&body["activationId"], &body["offloadingActivationId"]), (&json!(flow_id), &json!("a1")));
            assert_eq!((&body["result"], &body["error"]), (&json!({"sum": 3}), &Value::Null));
            assert_eq!(body["logs"], json!(["starting", r#"{"sum": 3}"#]));
        }
        let flow = stage.until_phase("sum", "Succeeded").await?;
        assert_eq!(flow.data["status"]["result"], json!({"sum": 3}));
        eventually("both retries are events", async || {
            let events = events(&stage).await?;
            ensure!(events.contains(&("CompletionRetry".to_owned(), 2)), "{events:?}");
            Ok(())
        })
        .await
    })
}

// OFF-25
#[test]
fn a_deadline_ends_the_action_and_is_told() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.trigger("/guest/t1")?;
        let mut spec = ending("i:1");
        spec["timeLimitSeconds"] = 2.into();
        spec["completion"] = json!({"triggers": ["/guest/t1"]});
        stage.offload("slow", spec).await?;
        stage.until_condition("slow", "Failed", "True", "DeadlineExceeded").await?;
        let told = whisk.wait_for(1, "the failure is told", Request::is_accepted).await?;
        let error = told[0].json()["error"].as_str().unwrap_or_default().to_owned();
        ensure!(error.starts_with("DeadlineExceeded"), "{error}");
        eventually("the deadline was warned of", async || {
            let events = events(&stage).await?;
            ensure!(events.iter().any(|(reason, _)| reason == "DeadlineApproaching"), "{events:?}");
            Ok(())
        })
        .await
    })
}

// OFF-26
#[test]
fn a_failed_action_is_not_repeated_and_kept_only_on_request() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, _whisk) = Stage::with_openwhisk(space).await?;
        space.set_container_log(&stage.namespace, "ow-action", &["Traceback", "ValueError: no"]).await?;
        for (name, keep) in [("gone", false), ("kept", true)] {
            let mut spec = ending("simulated.invalid/fails:300ms");
            spec["keepFailed"] = keep.into();
            spec["ttlSecondsAfterFinished"] = 1.into();
            stage.offload(name, spec).await?;
            stage.until_condition(name, "Failed", "True", "BackoffLimitExceeded").await?;
            let flow = stage.until_phase(name, "Failed").await?;
            assert_eq!(text(&flow, "logTail"), "Traceback\nValueError: no");
        }
        let kept = text(&stage.flows().get("kept").await?, "jobID");
        stage.until_counts("the Job that is kept, with its pod and Secret", [1, 1, 0, 1, 0, 0]).await?;
        let failed = stage.job(&kept).await?.status.and_then(|status| status.failed);
        assert_eq!(failed, Some(1), "one attempt only");
        Ok(())
    })
}

// OFF-16
#[test]
fn a_refused_job_is_told_and_leaves_nothing() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        whisk.trigger("/guest/t1")?;
        stage.refuse_jobs().await?;
        let mut spec = looked_up("/guest/ping");
        spec["completion"] = json!({"triggers": ["/guest/t1"]});
        stage.offload("ping", spec).await?;
        let message = stage.until_condition("ping", "Failed", "True", "CreateRejected").await?;
        ensure!(message.contains("exceeded quota"), "{message}");
        stage.until_counts("nothing is left", [0; 6]).await?;
        let told = whisk.wait_for(1, "the refusal is told", Request::is_accepted).await?;
        ensure!(told[0].json()["error"].as_str().context("an error")?.contains("exceeded quota"));
        Ok(())
    })
}

#[test]
fn an_image_that_cannot_be_pulled_is_named() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let spec =
            json!({"action": "/guest/ping", "image": "simulated.invalid/cannot-be-pulled", "timeLimitSeconds": 10});
        stage.offload("ping", spec).await?;
        stage.until_condition("ping", "Ready", "False", "ImagePull").await?;
        stage.until_condition("ping", "Failed", "True", "ImagePull").await?;
        let flow = stage.until_phase("ping", "Failed").await?;
        let failed = super::stage::condition(&flow.data, "Failed").context("a condition")?;
        assert_eq!(failed["reason"], "ImagePull", "the deadline is not the cause");
        Ok(())
    })
}

#[test]
fn an_evicted_pod_is_replaced_and_does_not_count() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        stage.offload("ping", json!({"action": "/guest/ping", "image": "i:1"})).await?;
        let flow = stage.until_phase("ping", "Running").await?;
        let pod = text(&flow, "podName");
        let evict = json!({"metadata": {"annotations": {"simulated.invalid/ow-action": "is-evicted"}}});
        let pods = stage.api::<k8s_openapi::api::core::v1::Pod>();
        pods.patch(&pod, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&evict)).await?;
        let flow = stage
            .until("ping", "another pod runs", |data| {
                data["status"]["phase"] == "Running" && data["status"]["podName"] != pod.as_str()
            })
            .await?;
        assert!(super::stage::condition(&flow.data, "Failed").is_none());
        Ok(())
    })
}
