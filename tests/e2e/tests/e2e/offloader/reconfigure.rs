//! New parameters and placements for flows that run.

use harness::{Context as _, Result, ensure, eventually, test_with_nodes};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::stage::{Stage, text};

fn spec() -> Value {
    json!({"action": "/guest/ping", "image": "i:1", "service": {"type": "ClusterIP", "ports": [{"port": 5000}]}})
}

// OFF-17
#[test]
fn a_new_placement_takes_over_once_its_pod_is_ready_and_the_service_leads_to_one_job_at_a_time() -> Result<()> {
    use futures::TryStreamExt as _;
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let flow_id = stage.offload("ping", spec()).await?;
        let before = stage.until_phase("ping", "Running").await?;
        let first = text(&before, "jobID");
        let services = stage.api::<Service>();
        let version = stage.service(&flow_id).await?.resource_version().context("a version")?;

        stage.patch("ping", json!({"placement": {"nodeSelector": {"processor": "gpu"}}})).await?;
        stage.until_condition("ping", "Reconfigured", "True", "Switched").await?;
        let after = stage
            .until("ping", "the old Job is gone", |data| {
                data["status"]["phase"] == "Running" && data["status"]["removingJobIDs"].is_null()
            })
            .await?;
        let second = text(&after, "jobID");
        assert_ne!(first, second);
        assert_eq!((text(&before, "flowID"), text(&after, "flowID")), (flow_id.clone(), flow_id.clone()));
        assert_eq!(text(&after, "nodeName"), "gpu");
        stage.until_counts("one Job with its pod", [1, 1, 1, 0, 0, 0]).await?;

        // Every version of the Service led to exactly one Job, first to the old one and then to the new one.
        let of_flow = WatchParams::default().labels(&format!("flowId={flow_id}")).timeout(1);
        let mut events = std::pin::pin!(services.watch(&of_flow, &version).await?);
        let mut selected = vec![first.clone()];
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(service) = event {
                let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
                assert_eq!(selector.get("flowId"), Some(&flow_id));
                selected.push(selector.get("jobId").cloned().context("a Service of all Jobs")?);
            }
        }
        selected.dedup();
        assert_eq!(selected, [first, second]);
        Ok(())
    })
}

#[test]
fn a_new_pod_that_does_not_become_ready_is_taken_back() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let mut spec = spec();
        spec["reconfigureTimeoutSeconds"] = 2.into();
        let flow_id = stage.offload("ping", spec).await?;
        let first = text(&stage.until_phase("ping", "Running").await?, "jobID");

        stage.patch("ping", json!({"image": "simulated.invalid/is-not-ready"})).await?;
        let message = stage.until_condition("ping", "Reconfigured", "False", "RolledBack").await?;
        ensure!(message.contains("2 s"), "{message}");
        let flow = stage.until_phase("ping", "Running").await?;
        assert_eq!((text(&flow, "jobID"), text(&flow, "resolvedImage").as_str()), (first.clone(), "i:1"));
        stage.until_counts("the old Job with its pod", [1, 1, 1, 0, 0, 0]).await?;
        let selector = stage.service(&flow_id).await?.spec.and_then(|spec| spec.selector).unwrap_or_default();
        assert_eq!(selector.get("jobId"), Some(&first));

        // What was taken back is not tried again by itself; another change is.
        stage.patch("ping", json!({"image": "i:2"})).await?;
        stage.until_condition("ping", "Reconfigured", "True", "Switched").await?;
        Ok(())
    })
}

#[test]
fn the_last_of_several_changes_in_a_row_remains() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        stage.offload("ping", spec()).await?;
        stage.until_phase("ping", "Running").await?;
        for image in ["simulated.invalid/is-not-ready", "simulated.invalid/starts-slowly:1h", "i:4"] {
            stage.patch("ping", json!({ "image": image })).await?;
        }
        stage
            .until("ping", "the last image runs", |data| {
                data["status"]["phase"] == "Running"
                    && data["status"]["resolvedImage"] == "i:4"
                    && data["status"]["removingJobIDs"].is_null()
            })
            .await?;
        stage.until_counts("one Job with its pod", [1, 1, 1, 0, 0, 0]).await
    })
}

// OFF-20
#[test]
fn the_runtime_configuration_changes_without_a_new_pod() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let mut spec = spec();
        spec["runtimeConf"] = json!({"target_ip": "10.244.4.7"});
        let flow_id = stage.offload("ping", spec).await?;
        let flow = stage.until_phase("ping", "Running").await?;
        let (job_id, pod) = (text(&flow, "jobID"), text(&flow, "podName"));
        let name = format!("offload-invoker-{flow_id}-conf");
        for value in ["10.244.4.8", "", "0"] {
            stage.patch("ping", json!({"runtimeConf": {"target_ip": value}})).await?;
            eventually("the file has the value", async || {
                let conf = stage.api::<ConfigMap>().get(&name).await?.data.unwrap_or_default();
                ensure!(conf.get("target_ip").is_some_and(|there| there == value), "{conf:?}");
                Ok(())
            })
            .await?;
        }
        let flow = stage.flows().get("ping").await?;
        assert_eq!((text(&flow, "jobID"), text(&flow, "podName")), (job_id.clone(), pod));
        let job = serde_json::to_value(stage.job(&job_id).await?)?;
        assert_eq!(job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"], name);
        let mount = &job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["mountPath"], "/conf");
        Ok(())
    })
}

#[test]
fn suspending_stops_the_pod_and_resuming_starts_it() -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        stage.offload("ping", spec()).await?;
        let flow = stage.until_phase("ping", "Running").await?;
        stage.patch("ping", json!({"suspend": true})).await?;
        let suspended = stage.until_phase("ping", "Pending").await?;
        stage.until_condition("ping", "Ready", "False", "Suspended").await?;
        assert_eq!(text(&suspended, "jobID"), text(&flow, "jobID"));
        let pods = stage.api::<k8s_openapi::api::core::v1::Pod>();
        eventually("the pod is gone", async || {
            let pods = pods.list(&ListParams::default()).await?.items;
            ensure!(pods.is_empty(), "{} pods", pods.len());
            Ok(())
        })
        .await?;
        stage.patch("ping", json!({"suspend": false})).await?;
        stage.until_phase("ping", "Running").await?;
        Ok(())
    })
}
