//! Where actions run, and with what.

use harness::{Context as _, Result, ensure, test_with_nodes};
use openwhisk::Action;
use serde_json::json;

use super::stage::{Stage, looked_up, text};

// OFF-12
#[test]
fn the_annotation_of_the_action_places_it_and_keeps_a_second_one_away() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        let annotation = json!({"invoker-selector": {"processor": "gpu"}, "action-antiaffinity": "true"});
        whisk.action("/guest/gpu", Action::blackbox("i:1").annotation("placement", annotation))?;
        stage.offload("first", looked_up("/guest/gpu")).await?;
        let first = stage.until_phase("first", "Running").await?;
        assert_eq!(text(&first, "nodeName"), "gpu");

        let job = serde_json::to_value(stage.job(&text(&first, "jobID")).await?)?;
        let pod = &job["spec"]["template"];
        assert_eq!(pod["spec"]["nodeSelector"], json!({"processor": "gpu"}));
        assert_eq!(pod["metadata"]["labels"]["FAAS_processor"], "gpu");
        let term = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(
            (&term["labelSelector"]["matchLabels"], term["topologyKey"].as_str()),
            (&json!({"FAAS_processor": "gpu"}), Some("kubernetes.io/hostname"))
        );

        stage.offload("second", looked_up("/guest/gpu")).await?;
        let message = stage.until_condition("second", "Scheduled", "False", "AntiAffinityUnsatisfied").await?;
        ensure!(!message.is_empty());
        let second = stage.flows().get("second").await?;
        assert_eq!(second.data["status"]["podPhase"], "Pending");
        Ok(())
    })
}

// OFF-14
#[test]
fn capabilities_and_labels_outlast_a_reconfiguration() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        let annotation = json!({"invoker-selector": {"processor": "gpu"}, "action-security_context": "true"});
        whisk.action("/guest/net", Action::blackbox("i:1").annotation("placement", annotation))?;
        stage.offload("net", looked_up("/guest/net")).await?;
        let first = text(&stage.until_phase("net", "Running").await?, "jobID");
        stage.patch("net", json!({"params": {"changed": true}})).await?;
        stage.until_condition("net", "Reconfigured", "True", "Switched").await?;
        let second = text(&stage.until_phase("net", "Running").await?, "jobID");
        assert_ne!(first, second);
        for job_id in [second] {
            let job = serde_json::to_value(stage.job(&job_id).await?)?;
            let pod = &job["spec"]["template"];
            assert_eq!(pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN"]));
            assert_eq!(pod["metadata"]["labels"]["FAAS_processor"], "gpu");
            let variables = pod["spec"]["containers"][0]["env"].as_array().context("variables")?;
            ensure!(variables.iter().any(|variable| variable["name"] == "__OW_API_KEY"), "{variables:?}");
        }
        Ok(())
    })
}

#[test]
fn a_placement_of_the_flow_wins_over_the_annotation() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        let annotation = json!({"invoker-selector": {"processor": "quantum"}});
        whisk.action("/guest/any", Action::blackbox("i:1").annotation("placement", annotation))?;
        stage.offload("annotated", looked_up("/guest/any")).await?;
        stage.until_condition("annotated", "Scheduled", "False", "NodeSelectorUnsatisfied").await?;
        let mut spec = looked_up("/guest/any");
        spec["placement"] = json!({"resources": {"limits": {"example.com/accelerator": 1}}});
        stage.offload("placed", spec).await?;
        let placed = stage.until_phase("placed", "Running").await?;
        assert_eq!(text(&placed, "nodeName"), "gpu", "only one node has accelerators");
        Ok(())
    })
}
