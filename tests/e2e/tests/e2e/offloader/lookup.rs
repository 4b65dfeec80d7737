//! Actions that OpenWhisk knows, and what becomes of those that it does not.

use harness::{Context as _, Result, ensure, eventually, test_with_nodes};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use openwhisk::{Action, Behaviour, OpenWhisk};
use serde_json::{Value, json};

use super::stage::{KEY, Stage, looked_up, text};

// OFF-02, OFF-32
#[test]
fn an_action_becomes_a_job_with_secret_and_service_labelled_as_the_original_does() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/5g-media/action_ping", Action::blackbox("i:1"))?;
        let mut spec = looked_up("/guest/5g-media/action_ping");
        spec["params"] = json!({"Name": "P"});
        spec["activationID"] = "a1".into();
        spec["service"] = json!({"ports": [{"port": 5000}]});
        let flow_id = stage.offload("ping", spec).await?;
        stage.until_condition("ping", "Ready", "True", "Running").await?;
        let flow = stage.until_phase("ping", "Running").await?;
        let job_id = text(&flow, "jobID");

        let job = stage.job(&job_id).await?;
        let expected = [
            ("ow_action", "guest_5g-media_action_ping"),
            ("vim_id", "a1"),
            ("ro_vim_vm_name", "na"),
            ("event_uuid", "na"),
            ("flowId", &flow_id),
            ("jobId", &job_id),
            ("job-type", "ow-offload-job"),
        ];
        let secret = stage.api::<Secret>().get(&format!("offload-invoker-{job_id}")).await?;
        let of_pod = job.spec.as_ref().and_then(|spec| spec.template.metadata.clone()).context("a template")?;
        for labels in [&job.metadata.labels, &of_pod.labels, &secret.metadata.labels] {
            let labels = labels.clone().unwrap_or_default();
            for (key, value) in expected {
                assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
            }
        }
        let pod = pod_spec(&job);
        let container = &pod["containers"][0];
        let argument: Value = serde_json::from_str(container["args"][0].as_str().context("an argument")?)?;
        assert_eq!(argument, json!({"Name": "P", "_VIM_VM_ID": "a1"}));
        assert_eq!((&container["image"], &container["command"]), (&json!("i:1"), &json!(["/action/exec"])));
        let key = secret.data.and_then(|mut data| data.remove("ow-api-key")).context("a key")?;
        assert_eq!(key.0, KEY.as_bytes());
        assert_eq!(pod["automountServiceAccountToken"], false, "an action has no way to the API server");
        let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
        ensure!(volumes.iter().all(|volume| volume.get("projected").is_none()), "{volumes:?}");

        let service = serde_json::to_value(stage.service(&flow_id).await?.spec)?;
        let ports: Vec<_> = service["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| (&port["name"], &port["port"], &port["protocol"]))
            .collect();
        let (first, second) =
            ((&json!("http-api-0"), &json!(5000), &json!("TCP")), (&json!("http-api-1"), &json!(8081), &json!("TCP")));
        assert_eq!((service["type"].as_str(), ports), (Some("NodePort"), vec![first, second]));
        let shown = &flow.data["status"]["service"]["ports"];
        ensure!(
            shown.as_array().is_some_and(|all| all.iter().all(|port| port["nodePort"].as_u64() >= Some(30_000))),
            "{shown}"
        );
        let network = &flow.data["status"]["network"];
        assert_eq!(network["podIPs"][0], flow.data["status"]["podIP"]);
        ensure!(network["serviceCIDRs"][0].as_str() == Some("10.96.0.0/16"), "{network}");
        Ok(())
    })
}

fn pod_spec(job: &Job) -> Value {
    let spec = job.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    serde_json::to_value(spec).unwrap_or_default()
}

// OFF-09, OFF-10
#[test]
fn what_cannot_run_says_why_and_makes_nothing() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/chain", Action::sequence(&["/guest/a"]))?;
        whisk.action("/guest/new", Action::code("python:3.11", "x"))?;
        super::stage::target(space, &stage.namespace, "stranger", &whisk.url(), "no:body").await?;
        for (name, spec, reason) in [
            ("missing", looked_up("/guest/missing"), "ActionNotFound"),
            ("chain", looked_up("/guest/chain"), "SequenceNotSupported"),
            ("new", looked_up("/guest/new"), "UnsupportedKind"),
            ("stranger", json!({"action": "/guest/new", "targetRef": {"name": "stranger"}}), "Unauthorized"),
            ("nowhere", json!({"action": "/guest/new", "targetRef": {"name": "nowhere"}}), "TargetNotFound"),
        ] {
            stage.offload(name, spec).await?;
            let message = stage.until_condition(name, "ActionResolved", "False", reason).await?;
            ensure!(!message.contains("no:body") && !message.is_empty(), "{message}");
        }
        assert_eq!(stage.counts().await?, [0; 6]);
        Ok(())
    })
}

#[test]
fn a_flow_begins_once_its_target_is_there() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        stage.offload("ping", json!({"action": "/guest/ping", "targetRef": {"name": "later"}})).await?;
        stage.until_condition("ping", "ActionResolved", "False", "TargetNotFound").await?;
        stage.host.until_asleep(super::stage::GUEST).await?;
        super::stage::target(space, &stage.namespace, "later", &whisk.url(), KEY).await?;
        stage.until_condition("ping", "Ready", "True", "Running").await?;
        Ok(())
    })
}

#[test]
fn openwhisk_that_stumbles_is_asked_again() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        let line = "GET /api/v1/namespaces/guest/actions/ping";
        whisk.script(
            line,
            [Behaviour::Status(503), Behaviour::Garbage, Behaviour::Half, Behaviour::Cut, Behaviour::Huge(2 << 20)],
        );
        stage.offload("ping", looked_up("/guest/ping")).await?;
        stage.until_condition("ping", "ActionResolved", "True", "Resolved").await?;
        assert_eq!(whisk.requests().iter().filter(|request| request.line() == line).count(), 6);
        Ok(())
    })
}

// OFF-11
#[test]
fn a_nodejs_action_without_main_gets_the_image_and_the_name_of_the_original() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        whisk.action("/guest/js", Action::code("nodejs", "function main() {}"))?;
        stage.offload("js", looked_up("/guest/js")).await?;
        stage.until_condition("js", "ActionResolved", "True", "Resolved").await?;
        let flow = stage.flows().get("js").await?;
        assert_eq!(
            (text(&flow, "resolvedImage").as_str(), text(&flow, "main").as_str()),
            ("openwhisk/nodejs6action", "main")
        );
        assert_eq!(text(&flow, "kind"), "nodejs");
        Ok(())
    })
}

#[test]
fn a_target_says_whether_openwhisk_answers() -> Result<()> {
    test_with_nodes(async |space| {
        let (stage, whisk) = Stage::with_openwhisk(space).await?;
        super::stage::target(space, &stage.namespace, "stranger", &whisk.url(), "no:body").await?;
        super::stage::target(space, &stage.namespace, "elsewhere", "https://not-allowed.example", KEY).await?;
        for (name, status, reason) in [
            ("whisk", "True", "Reachable"),
            ("stranger", "False", "Unauthorized"),
            ("elsewhere", "False", "Unreachable"),
        ] {
            eventually(&format!("`{name}` is {reason}"), async || {
                let target = stage.custom("OffloadTarget").get(name).await?;
                let found = super::stage::condition(&target.data, "Reachable").cloned().unwrap_or_default();
                ensure!(found["status"] == status && found["reason"] == reason, "{found}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
}

#[test]
fn an_openwhisk_with_an_authority_of_its_own_is_trusted_once_the_guest_is_told_of_it() -> Result<()> {
    test_with_nodes(async |space| {
        let whisk = OpenWhisk::start_tls().await?;
        whisk.namespace("guest", KEY);
        whisk.action("/guest/ping", Action::blackbox("i:1"))?;
        let file = space.directory().join("authorities.pem");
        // An authority, and the wrong one.
        let stranger = OpenWhisk::start_tls().await?;
        std::fs::write(&file, stranger.authority().context("an authority")?)?;
        let stage =
            Stage::beside(space, &whisk, |guest| guest.set("certificateAuthorities", file.display().to_string()))
                .await?;
        stage.offload("ping", looked_up("/guest/ping")).await?;
        let message = stage.until_condition("ping", "ActionResolved", "False", "LookupFailed").await?;
        ensure!(message.contains("Tls"), "{message}");

        let next = file.with_extension("next");
        std::fs::write(&next, whisk.authority().context("an authority")?)?;
        std::fs::rename(&next, &file)?;
        stage.until_phase("ping", "Running").await?;
        Ok(())
    })
}
