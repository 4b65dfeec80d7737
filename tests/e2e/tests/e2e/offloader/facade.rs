//! The calls of the original, as an unmodified client sends them.

use harness::{Context as _, Guest, HttpClient, Result, Space, audience_token, ensure, eventually, test_with_nodes};
use openwhisk::{Action, OpenWhisk};
use serde_json::{Value, json};

use super::stage::{GUEST, KEY, Stage, guest, install, openwhisk_with_user};
use crate::front_door::{AUDIENCE, grant, open};

/// A host whose front door leads to the façade, and OpenWhisk.
struct Facade<'a> {
    stage: Stage<'a>,
    whisk: OpenWhisk,
    client: HttpClient,
}

impl<'a> Facade<'a> {
    async fn new(space: &'a Space) -> Result<Self> {
        install(space).await?;
        let whisk = openwhisk_with_user().await?;
        whisk.action("/guest/5g-media/action_ping", Action::blackbox("i:1"))?;
        let namespace = space.namespace("a").await?;
        let guest: Guest = guest(&namespace).set("allowedHosts", vec![whisk.url()]);
        let (host, address) = open(space.host().guest(guest).argument("--front-door-plain")).await?;
        let subject = json!({"kind": "ServiceAccount", "name": "vim", "namespace": namespace});
        grant(space, &format!("{namespace}-vim"), subject, &["get", "create"], &[GUEST]).await?;
        let token = audience_token(&space.client(), &namespace, "vim", AUDIENCE).await?;
        let facade =
            Self { stage: Stage { space, host, namespace }, whisk, client: HttpClient::plain(address).bearer(&token) };
        // Rights take a moment until they are known everywhere.
        eventually("the caller has its right", async || {
            let answer = facade.client.get("/guests/offloader/hello").await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
            Ok(())
        })
        .await?;
        Ok(facade)
    }

    /// Status and body, as JSON if it is.
    async fn post(&self, call: &str, value: Value) -> Result<(u16, Value)> {
        let body = json!({ "value": value }).to_string().into_bytes();
        let answer = self.client.send("POST", &format!("/guests/{GUEST}{call}"), &[], body).await?;
        let text = answer.text();
        Ok((answer.status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    fn ping(&self, coe: Value) -> Value {
        json!({
            "owAPIHost": self.whisk.url(), "owAPIKey": KEY, "action": "/guest/5g-media/action_ping", "coe_action_params": coe,
        })
    }

    async fn offload(&self, value: Value) -> Result<Value> {
        let (status, answer) = self.post("/offload", value).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(answer)
    }

    async fn count(&self) -> Result<usize> {
        Ok(self.stage.flows().list(&kube::api::ListParams::default()).await?.items.len())
    }

    /// Until the flow's pod runs.
    async fn until_running(&self, flow_id: &str) -> Result<Value> {
        eventually("the flow's pod runs", async || {
            let (status, answer) = self.post("/getPod", json!({"flowId": flow_id})).await?;
            ensure!(
                status == 200 && answer["phase"] == "Running" && answer["pod_ip"].is_string(),
                "{status}: {answer}"
            );
            Ok(answer)
        })
        .await
    }
}

// OFF-01, OFF-02
#[test]
fn a_client_offloads_looks_reconfigures_configures_and_deletes() -> Result<()> {
    test_with_nodes(async |space| {
        let facade = Facade::new(space).await?;
        let hello = facade.client.get("/guests/offloader/hello").await?;
        ensure!(hello.status == 200 && hello.text().starts_with("Greetings"), "{}", hello.text());

        let mut value = facade.ping(json!({"service_ports": ["5000"], "action_params": {"Name": "P"}}));
        value["activationId"] = "a1".into();
        value["ro_vim_vm_name"] = "vm 1".into();
        let offloaded = facade.offload(value.clone()).await?;
        let flow_id = offloaded["flowId"].as_str().context("a flow")?.to_owned();
        let ports = &offloaded["service"]["service_ports"];
        ensure!(ports["5000"].as_u64() >= Some(30_000) && ports["8081"].as_u64() >= Some(30_000), "{offloaded}");
        assert_eq!(offloaded["service"]["name"], format!("offload-invoker-{flow_id}"));
        assert_eq!((flow_id.len(), offloaded["jobId"].as_str().unwrap_or_default().len()), (32, 32));

        let pod = facade.until_running(&flow_id).await?;
        assert_eq!(
            (&pod["action"], &pod["flowId"], &pod["vim-id"], &pod["service"]),
            (&json!("/guest/5g-media/action_ping"), &json!(flow_id), &json!("a1"), &offloaded["service"])
        );
        let (_, records) = facade.post("/getPodFromRoLabel", json!({"ro_vim_vm_name": "vm 1"})).await?;
        assert_eq!((&records["_exists"], &records["records"][0]["flowId"]), (&json!("true"), &json!(flow_id)));
        assert_eq!(records["records"][0]["event_uuid"], "na");

        // OFF-20
        let ip = pod["pod_ip"].as_str().context("an address")?;
        for value in [json!("10.244.4.8"), json!(""), json!(0)] {
            let (status, answer) =
                facade.post(&format!("/conf/{ip}"), json!({"param_name": "target_ip", "param_value": value})).await?;
            assert_eq!((status, answer), (200, json!("OK")), "{value}");
        }
        eventually("the flow's status has the pod's addresses", async || {
            let (status, networks) = facade.post("/getNetworks", json!({"flowId": flow_id})).await?;
            ensure!(status == 200 && networks["pod_ips"] == json!([ip]), "{status}: {networks}");
            Ok(())
        })
        .await?;

        let (status, answer) = facade.post("/getLogs", json!({"jobId": offloaded["jobId"]})).await?;
        ensure!(
            status == 500 || answer["actionLogs"].is_array() && answer["invokerLogs"] == json!([]),
            "{status}: {answer}"
        );

        // OFF-17
        value["flowId"] = flow_id.clone().into();
        value["coe_action_params"]["annotations"] =
            json!([{"key": "placement", "value": {"invoker-selector": {"processor": "gpu"}}}]);
        let (status, answer) = facade.post("/reconfigure", value).await?;
        assert_eq!((status, answer), (200, json!("OK")));
        eventually("a new pod has taken over", async || {
            let (status, now) = facade.post("/getPod", json!({"flowId": flow_id})).await?;
            ensure!(status == 200 && now["pod_ip"] != pod["pod_ip"] && now["phase"] == "Running", "{now}");
            Ok(())
        })
        .await?;

        for _ in 0..2 {
            assert_eq!(facade.post("/deleteJob", json!({"flowId": flow_id})).await?, (200, json!("OK")));
        }
        facade.stage.until_counts("nothing is left", [0; 6]).await?;
        // OFF-23
        assert_eq!(
            facade.post("/getPodFromRoLabel", json!({"ro_vim_vm_name": "vm 1"})).await?,
            (200, json!({"_exists": "false"}))
        );
        assert_eq!(facade.post("/getPod", json!({"flowId": flow_id})).await?.0, 500);
        Ok(())
    })
}

// OFF-03, OFF-07
#[test]
fn services_of_a_cluster_have_no_ports_on_nodes_and_none_has_no_ports() -> Result<()> {
    test_with_nodes(async |space| {
        let facade = Facade::new(space).await?;
        let coe = json!({"service_ports": ["5000", "6000/udp"], "service_type": "clusterIP"});
        let answer = facade.offload(facade.ping(coe)).await?;
        assert_eq!(answer["service"]["service_ports"], json!({"5000": -1, "6000": -1, "8081": -1}));
        let answer = facade.offload(facade.ping(json!({"service_type": null}))).await?;
        assert_eq!(answer["service"], json!({}));
        Ok(())
    })
}

// OFF-06, OFF-08, OFF-09, OFF-10, OFF-16
#[test]
fn what_cannot_be_offloaded_is_refused_with_the_originals_status_and_leaves_nothing() -> Result<()> {
    test_with_nodes(async |space| {
        let facade = Facade::new(space).await?;
        facade.whisk.action("/guest/chain", Action::sequence(&["/guest/a"]))?;
        facade.whisk.action("/guest/new", Action::code("python:3.11", "x"))?;
        for name in ["owAPIHost", "owAPIKey", "action"] {
            let mut value = facade.ping(json!({}));
            value.as_object_mut().context("an object")?.remove(name);
            let (status, answer) = facade.post("/offload", value).await?;
            ensure!(status == 400 && answer.to_string().contains(name), "{status}: {answer}");
        }
        let with = |field: &str, value: &str| {
            let mut call = facade.ping(json!({}));
            call[field] = value.into();
            call
        };
        for (value, expected) in [
            (with("owAPIKey", "no:body"), 401),
            (with("action", "/guest/missing"), 404),
            (with("action", "/guest/chain"), 400),
            (with("action", "/guest/new"), 400),
            (facade.ping(json!({"service_type": "Foo"})), 500),
            (with("owAPIHost", "https://not-allowed.example"), 500),
        ] {
            let (status, answer) = facade.post("/offload", value.clone()).await?;
            assert_eq!(status, expected, "{value}: {answer}");
        }
        assert_eq!(facade.count().await?, 0);

        facade.stage.refuse_jobs().await?;
        let (status, answer) = facade.post("/offload", facade.ping(json!({}))).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        ensure!(
            status == 500 && error.starts_with("Internal error.") && error.contains("exceeded quota"),
            "{status}: {answer}"
        );
        eventually("the failed flow is gone", async || {
            ensure!(facade.count().await? == 0, "it is there");
            Ok(())
        })
        .await?;
        facade.stage.until_counts("nothing is left", [0; 6]).await
    })
}

// OFF-21
#[test]
fn flows_of_an_event_are_deleted_together_and_others_stay() -> Result<()> {
    test_with_nodes(async |space| {
        let facade = Facade::new(space).await?;
        for event in ["e9", "e9", "e10"] {
            let mut value = facade.ping(json!({"service_type": "ClusterIP"}));
            value["event_uuid"] = event.into();
            facade.offload(value).await?;
        }
        facade.stage.until_counts("three flows", [3, 3, 3, 3, 3, 0]).await?;
        for _ in 0..2 {
            let value = json!({"label_name": "event_uuid", "label_value": "e9"});
            assert_eq!(facade.post("/deleteJobFromLabel", value).await?, (200, json!("OK")));
            facade.stage.until_counts("one flow", [1, 1, 1, 1, 1, 0]).await?;
        }
        let left = facade.stage.flows().list(&kube::api::ListParams::default()).await?.items;
        assert_eq!(left[0].data["spec"]["eventUUID"], "e10");
        Ok(())
    })
}
