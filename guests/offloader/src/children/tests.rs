use serde_json::{Value, json};

use super::*;
use crate::params::{self, Source};

fn action(spec: Value) -> OffloadedAction {
    let object = json!({
        "apiVersion": "offloader.wasm-operator.dev/v1alpha1", "kind": "OffloadedAction",
        "metadata": {"name": "flow", "namespace": "n", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn objects_with(spec: Value, sources: Vec<Source>, settings: &Settings) -> (Value, RunObjects) {
    let action = action(spec);
    let run = Run {
        action: &action,
        settings,
        name: name_of(&action, "_").unwrap(),
        job_id: "j".to_owned(),
        image: "i:1".to_owned(),
        placement: action.spec.placement.clone().unwrap_or_default(),
        openwhisk: Some(OpenWhisk { api_host: "https://ow".to_owned(), api_key: "user:secret".to_owned() }),
        params: params::merge(&action.spec, sources, settings.large_bytes).unwrap(),
    };
    let objects = run.objects();
    (serde_json::to_value(&objects.job).unwrap(), objects)
}

fn job_of(spec: Value) -> Value {
    objects_with(spec, vec![], &Settings::default()).0
}

fn container(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn everything_belongs_to_the_custom_resource_and_leads_back_to_it() {
    let (job, objects) = objects_with(json!({"action": "/g/a", "image": "i:1"}), vec![], &Settings::default());
    let secret = serde_json::to_value(objects.secret).unwrap();
    for object in [&job, &secret] {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((owner["name"].as_str(), owner["controller"].as_bool()), (Some("flow"), Some(true)));
        assert_eq!(object["metadata"]["name"], "offload-invoker-j");
    }
    let annotations = &job["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations[labels::OWNER], "flow");
}

#[test]
fn a_key_is_in_the_secret_and_nowhere_else() {
    let (job, objects) = objects_with(json!({"action": "/g/a", "image": "i:1"}), vec![], &Settings::default());
    assert!(!job.to_string().contains("secret\""), "{job}");
    assert!(!job.to_string().contains("user:secret"));
    let data = objects.secret.unwrap().data.unwrap();
    assert_eq!(data["ow-api-key"].0, b"user:secret");
    let reference =
        container(&job)["env"].as_array().unwrap().iter().find(|one| one["name"] == "__OW_API_KEY").unwrap();
    assert_eq!(reference["valueFrom"]["secretKeyRef"], json!({"name": "offload-invoker-j", "key": "ow-api-key"}));
}

#[test]
fn parameters_reach_the_action_as_they_are() {
    let params = json!({"price": "$(__OW_API_KEY) costs $5", "quote": "\"'"});
    let job = job_of(json!({"action": "/g/a", "image": "i:1", "params": params}));
    let argument = container(&job)["args"][0].as_str().unwrap();
    // The kubelet would put the key here.
    assert!(!argument.contains("\"$("), "{argument}");
    let seen: Value = serde_json::from_str(&argument.replace("$$", "$")).unwrap();
    assert_eq!((&seen["price"], &seen["quote"]), (&params["price"], &params["quote"]));
}

#[test]
fn large_parameters_are_in_a_config_map_and_reach_the_action_all_the_same() {
    let large = json!({"action": "/g/a", "image": "i:1", "params": {"x": "y".repeat(40_000)}});
    let (job, objects) = objects_with(large, vec![], &Settings::default());
    assert_eq!(container(&job)["args"], json!(["$(__OW_OFFLOAD_PARAMS)"]));
    let map = objects.params.unwrap();
    assert_eq!(map.metadata.name.as_deref(), Some("offload-invoker-j-params"));
    assert!(map.data.unwrap()["params"].len() > 40_000 && job.to_string().len() < 10_000);
}

#[test]
fn parameters_from_a_secret_stay_in_one() {
    let values = json!({"password": "hunter2"}).as_object().cloned().unwrap();
    let source = Source { values, secret: true };
    let (job, objects) = objects_with(json!({"action": "/g/a", "image": "i:1"}), vec![source], &Settings::default());
    assert!(!job.to_string().contains("hunter2"));
    assert!(String::from_utf8(objects.secret.unwrap().data.unwrap()["params"].0.clone()).unwrap().contains("hunter2"));
    assert!(objects.params.is_none());
}

// OFF-32
#[test]
fn an_action_gets_no_token() {
    let settings = Settings { service_account: Some("offloaded".to_owned()), ..Settings::default() };
    let (job, _) = objects_with(json!({"action": "/g/a", "image": "i:1"}), vec![], &settings);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["automountServiceAccountToken"], &pod["serviceAccountName"]),
        (&json!(false), &json!("offloaded"))
    );
}

// OFF-12
#[test]
fn anti_affinity_keeps_other_flows_away_and_lets_the_own_one_take_over() {
    for (placement, label) in [
        (
            json!({"antiAffinity": "SameSelector", "nodeSelector": {"processor": "gpu"}}),
            json!({"FAAS_processor": "gpu"}),
        ),
        (json!({"antiAffinity": "SameSelector"}), json!({"ow_action": "g_a"})),
        (json!({"antiAffinity": "SameAction", "nodeSelector": {"processor": "gpu"}}), json!({"ow_action": "g_a"})),
    ] {
        let job = job_of(json!({"action": "/g/a", "image": "i:1", "placement": placement}));
        let affinity = &job["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
        let term = &affinity["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(
            (&term["labelSelector"]["matchLabels"], term["topologyKey"].as_str()),
            (&label, Some("kubernetes.io/hostname"))
        );
        let own = &term["labelSelector"]["matchExpressions"][0];
        assert_eq!((own["key"].as_str(), own["operator"].as_str()), (Some("flowId"), Some("NotIn")));
    }
    let free = job_of(json!({"action": "/g/a", "image": "i:1"}));
    assert_eq!(free["spec"]["template"]["spec"]["affinity"], Value::Null);
}

#[test]
fn limits_of_the_job_follow_the_spec() {
    let job = job_of(json!({"action": "/g/a", "image": "i:1", "timeLimitSeconds": 0, "backoffLimit": 3}));
    assert_eq!((&job["spec"]["activeDeadlineSeconds"], &job["spec"]["backoffLimit"]), (&Value::Null, &json!(3)));
    let job = job_of(json!({"action": "/g/a", "image": "i:1"}));
    assert_eq!((&job["spec"]["activeDeadlineSeconds"], &job["spec"]["backoffLimit"]), (&json!(3600), &json!(0)));
    let rule = &job["spec"]["podFailurePolicy"]["rules"][0];
    assert_eq!(
        (rule["action"].as_str(), rule["onPodConditions"][0]["type"].as_str()),
        (Some("Ignore"), Some("DisruptionTarget"))
    );
}

#[test]
fn configuration_is_projected_unless_it_is_pushed() {
    let settings = Settings { conf_image: Some("conf:1".to_owned()), ..Settings::default() };
    let pod = |spec: Value| objects_with(spec, vec![], &settings).0["spec"]["template"]["spec"].clone();
    let conf = "offload-invoker-11111111222233334444555555555555-conf";

    let projected = pod(json!({"action": "/g/a", "image": "i:1", "runtimeConf": {}}));
    assert_eq!(projected["volumes"], json!([{"name": "conf-volume", "configMap": {"name": conf}}]));
    assert_eq!(projected["initContainers"], Value::Null);

    let pushed = pod(json!({"action": "/g/a", "image": "i:1", "runtimeConf": {}, "pushConf": true}));
    assert_eq!(pushed["volumes"][0], json!({"name": "conf-volume", "emptyDir": {}}));
    let side = &pushed["initContainers"][0];
    assert_eq!(
        (side["name"].as_str(), side["image"].as_str(), side["restartPolicy"].as_str()),
        (Some("ow-conf"), Some("conf:1"), Some("Always"))
    );

    let without = pod(json!({"action": "/g/a", "image": "i:1"}));
    assert_eq!(without["volumes"], json!([{"name": "conf-volume", "emptyDir": {}}]));
}

// OFF-03
#[test]
fn each_port_is_there_once_and_that_of_the_configuration_always() {
    let source = |ports: Value| serde_json::from_value(json!({ "ports": ports })).unwrap();
    let numbers = |ports: Value| super::ports(&source(ports), 8081).iter().map(|port| port.port).collect::<Vec<_>>();
    assert_eq!(numbers(json!([])), [8081]);
    assert_eq!(numbers(json!([{"port": 8081}, {"port": 5000}, {"port": 5000}])), [8081, 5000]);
    let both = json!([{"port": 53}, {"port": 53, "protocol": "UDP"}]);
    assert_eq!(numbers(both), [53, 53, 8081]);
}

#[test]
fn a_service_is_left_alone_until_something_that_matters_differs() {
    let action = action(json!({"action": "/g/a", "image": "i:1"}));
    let wanted = flow_service(&action, "j", &Settings::default()).unwrap();
    let mut there = wanted.clone();
    let spec = there.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.96.0.9".to_owned());
    spec.ports.as_mut().unwrap()[0].node_port = Some(30_001);
    assert!(service_matches(&wanted, &there));
    assert_eq!(service_status(&there).ports[0].node_port, Some(30_001));
    assert!(!service_matches(&flow_service(&action, "other", &Settings::default()).unwrap(), &there));
}

#[test]
fn a_policy_without_peers_lets_nobody_in() {
    let ingress = |from: Value| {
        let action = action(json!({"action": "/g/a", "image": "i:1", "networkPolicy": {"ingressFrom": from}}));
        serde_json::to_value(policy(&action).unwrap()).unwrap()["spec"]["ingress"].clone()
    };
    assert_eq!(ingress(json!([])), Value::Null);
    let peer = json!({"podSelector": {"matchLabels": {"app": "x"}}});
    assert_eq!(ingress(json!([peer])), json!([{"from": [peer]}]));
}
