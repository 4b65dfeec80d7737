//! From the custom resource to Job, Secret and Service.

use harness::{Result, test};
use serde_json::{Value, json};

use super::stage::{Stage, text};

// OFF-03
#[test]
fn ports_have_their_protocols_and_the_one_of_the_configuration_is_added() -> Result<()> {
    test(async |space| {
        let stage = Stage::new(space).await?;
        let ports = json!([{"port": 5000}, {"port": 6000, "protocol": "UDP"}]);
        let spec = json!({"action": "/guest/ping", "image": "i:1", "service": {"type": "ClusterIP", "ports": ports}});
        let flow_id = stage.offload("ping", spec).await?;
        stage.until_condition("ping", "ServiceReady", "True", "Applied").await?;

        let service = stage.service(&flow_id).await?.spec.unwrap_or_default();
        let ports: Vec<_> =
            service.ports.into_iter().flatten().map(|port| (port.name, port.port, port.protocol)).collect();
        let expected = [("http-api-0", 5000, "TCP"), ("http-api-1", 6000, "UDP"), ("http-api-2", 8081, "TCP")];
        assert_eq!(
            ports,
            expected.map(|(name, port, protocol)| (Some(name.to_owned()), port, Some(protocol.to_owned())))
        );
        assert_eq!(service.type_.as_deref(), Some("ClusterIP"));
        Ok(())
    })
}

// OFF-07
#[test]
fn without_a_service_there_is_none_and_no_condition_about_it() -> Result<()> {
    test(async |space| {
        let stage = Stage::new(space).await?;
        let spec = json!({"action": "/guest/ping", "image": "i:1", "service": {"type": "None"}});
        stage.offload("ping", spec).await?;
        let flow =
            stage.until("ping", "the flow is observed", |data| data["status"]["observedGeneration"] == 1).await?;
        stage.until_pod(&text(&flow, "jobID")).await?;
        let flow = stage.until("ping", "the pod is seen", |data| data["status"]["podName"] != Value::Null).await?;

        assert!(super::stage::condition(&flow.data, "ServiceReady").is_none());
        stage.until_counts("a Job with its pod and nothing else", [1, 1, 0, 0, 0, 0]).await
    })
}

// OFF-06
#[test]
fn what_the_schema_does_not_know_is_refused() -> Result<()> {
    test(async |space| {
        let stage = Stage::new(space).await?;
        for (spec, named) in [
            (json!({"action": "/guest/ping", "image": "i", "service": {"type": "Foo"}}), "spec.service.type"),
            (json!({"action": "/guest/ping"}), "targetRef"),
            (json!({"action": "/guest/a/b/c", "image": "i"}), "spec.action"),
            (json!({"action": "", "image": "i"}), "spec.action"),
            (json!({"action": "a", "image": "i", "service": {"ports": [{"port": 0}]}}), "spec.service.ports[0].port"),
            (json!({"action": "a", "image": "i", "runtimeConf": {"../x": "y"}}), "runtimeConf"),
            (json!({"action": "a", "image": "i", "paramsFrom": [{}]}), "paramsFrom"),
            (json!({"action": "a", "image": "i", "completion": {"triggers": ["t"]}}), "completion"),
            (json!({"action": "a", "image": "i", "timeLimitSeconds": -1}), "timeLimitSeconds"),
        ] {
            let error = stage.offload("odd", spec.clone()).await.expect_err("it was accepted");
            assert!(error.to_string().contains(named), "{spec}: {error}");
        }
        assert_eq!(stage.counts().await?, [0; 6]);
        Ok(())
    })
}
