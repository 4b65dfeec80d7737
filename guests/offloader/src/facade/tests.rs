use serde_json::{Map, Value, json};

use super::*;
use crate::api::{Placement, Port, Protocol, ServiceType};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn offload(value: Value) -> Result<call::Call, Fault> {
    call::offload(&object(value), &Settings::default())
}

/// The least that `/offload` takes, with these parameters for the cluster.
fn with(coe: Value) -> Value {
    json!({"owAPIHost": "http://ow", "owAPIKey": "u:p", "action": "/guest/ping", "coe_action_params": coe})
}

fn body(response: &http::Response<bytes::Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_default()
}

#[test]
fn a_body_is_read_as_leniently_as_the_original_reads_it() {
    for empty in ["", "not JSON", "{}", "[]", "0", "null", "{\"other\": 1}"] {
        assert_eq!(call::value(empty.as_bytes()), Ok(Map::new()), "{empty}");
    }
    assert_eq!(call::value(br#"{"value": {"a": 1}}"#), Ok(object(json!({"a": 1}))));
    for odd in ["[1]", "7", "\"text\"", r#"{"value": 3}"#, r#"{"value": null}"#] {
        assert_eq!(call::value(odd.as_bytes()).unwrap_err().status(), 400, "{odd}");
    }
}

// OFF-08
#[test]
fn each_required_parameter_is_missed_by_name() {
    let all = with(json!({}));
    for name in ["owAPIHost", "owAPIKey", "action"] {
        let mut value = object(all.clone());
        value.remove(name);
        let fault = call::offload(&value, &Settings::default()).unwrap_err();
        let response = reply::of(Err(fault));
        assert_eq!(response.status(), 400);
        assert!(
            String::from_utf8_lossy(response.body())
                .contains(&format!("Required parameter &#34;{name}&#34; not provided"))
        );
        assert_eq!(response.headers()["content-type"], "text/html");
    }
}

#[test]
fn what_is_left_out_has_the_originals_defaults() {
    let call = offload(with(json!({"action_params": {"Name": "P"}}))).unwrap();
    let spec = &call.spec;
    assert_eq!(
        (spec.activation_id.as_str(), spec.ro_vim_vm_name.as_str(), spec.event_uuid.as_str()),
        ("42", "na", "na")
    );
    assert_eq!(
        (spec.service.type_, spec.service.ports.len(), call.namespace.as_str()),
        (ServiceType::NodePort, 0, "_")
    );
    assert_eq!(spec.params, object(json!({"Name": "P"})));
    assert_eq!(call.given, [false; 3]);
    assert!(spec.completion.is_none() && call.placement.is_none());
}

// OFF-03
#[test]
fn ports_are_numbers_or_texts_with_a_protocol() {
    let call =
        offload(with(json!({"service_ports": ["5000", 5001, "6000/udp", "6001/UDP"], "service_type": "clusterIP"})))
            .unwrap();
    let port = |port, protocol| Port { port, protocol };
    let expected =
        [port(5000, Protocol::Tcp), port(5001, Protocol::Tcp), port(6000, Protocol::Udp), port(6001, Protocol::Udp)];
    assert_eq!(
        (call.spec.service.type_, call.spec.service.ports.as_slice()),
        (ServiceType::ClusterIP, expected.as_slice())
    );
}

// OFF-06
#[test]
fn a_service_that_cannot_be_is_an_internal_error() {
    for coe in [
        json!({"service_type": "Foo"}),
        json!({"service_type": 3}),
        json!({"service_ports": "5000"}),
        json!({"service_ports": ["http"]}),
        json!({"service_ports": [0]}),
        json!({"service_ports": [70000]}),
        json!({"action_params": []}),
        json!([1]),
    ] {
        let response = reply::of(Err(offload(with(coe.clone())).unwrap_err()));
        assert_eq!(response.status(), 500, "{coe}");
        assert!(body(&response)["error"].as_str().unwrap().starts_with("Internal error. "), "{coe}");
    }
}

#[test]
fn an_empty_service_type_means_no_service() {
    for empty in [json!(null), json!("")] {
        let call = offload(with(json!({"service_type": empty}))).unwrap();
        assert_eq!(call.spec.service.type_, ServiceType::None);
    }
}

fn flow(spec: Value, status: Value) -> OffloadedAction {
    let flow = json!({
        "apiVersion": "offloader.wasm-operator.dev/v1alpha1", "kind": "OffloadedAction",
        "metadata": {"name": "f", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1},
        "spec": spec, "status": status,
    });
    serde_json::from_value(flow).unwrap()
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": "because", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn the_answer_to_offload_has_flow_job_and_ports() {
    let ports = json!([{"port": 5000, "protocol": "TCP", "nodePort": 30123}, {"port": 8081, "protocol": "TCP"}]);
    let status = json!({"jobID": "j", "service": {"name": "s", "ports": ports}, "conditions": [condition("ServiceReady", "True", "Applied")]});
    let flow = flow(json!({"action": "a", "image": "i"}), status);
    let expected = json!({
        "flowId": "11111111222233334444555555555555", "jobId": "j",
        "service": {"name": "s", "service_ports": {"5000": 30123, "8081": -1}},
    });
    assert_eq!(offload::decided(&flow), Some(Ok(Answer::Json(expected))));
}

#[test]
fn a_flow_without_a_service_is_decided_once_its_job_is_there() {
    let spec = json!({"action": "a", "image": "i", "service": {"type": "None"}});
    assert_eq!(offload::decided(&flow(spec.clone(), json!({"jobID": "j"}))), None);
    let answer = offload::decided(&flow(spec, json!({"jobID": "j", "observedGeneration": 1})));
    assert!(matches!(answer, Some(Ok(Answer::Json(answer))) if answer["service"] == json!({})));
}

// OFF-09, OFF-10, OFF-16
#[test]
fn a_flow_that_cannot_run_has_the_status_of_its_reason() {
    for (type_, status, reason, code) in [
        ("ActionResolved", "False", "Unauthorized", 401),
        ("ActionResolved", "False", "ActionNotFound", 404),
        ("ActionResolved", "False", "SequenceNotSupported", 400),
        ("ActionResolved", "False", "UnsupportedKind", 400),
        ("Failed", "True", "CreateRejected", 500),
        ("ServiceReady", "False", "CreateRejected", 500),
    ] {
        let flow = flow(
            json!({"action": "a", "image": "i"}),
            json!({"jobID": "j", "conditions": [condition(type_, status, reason)]}),
        );
        let fault = offload::decided(&flow).unwrap().unwrap_err();
        assert_eq!(fault.status(), code, "{reason}");
        assert!(fault.to_string().contains("because"));
    }
    let waiting = json!({"conditions": [condition("ActionResolved", "False", "LookupFailed")]});
    assert_eq!(offload::decided(&flow(json!({"action": "a", "image": "i"}), waiting)), None);
}

#[test]
fn a_reconfiguration_keeps_what_it_does_not_name() {
    let mut spec = flow(
        json!({"action": "/guest/ping", "image": "i", "activationID": "a1", "eventUUID": "e9", "params": {"old": 1},
            "placement": {"capabilities": ["NET_ADMIN"], "nodeSelector": {"processor": "gpu"}},
            "service": {"type": "ClusterIP", "ports": [{"port": 5000}]}}),
        json!({}),
    )
    .spec;
    let before = spec.clone();
    let annotations = json!([{"key": "placement", "value": {"invoker-selector": {"processor": "cpu"}}}]);
    reconfigure::change(
        &mut spec,
        &offload(with(json!({"action_params": {"new": 2}, "annotations": annotations}))).unwrap(),
    );

    assert_eq!(spec.params, object(json!({"new": 2})));
    let selector = [("processor".to_owned(), "cpu".to_owned())].into();
    let capabilities = vec!["NET_ADMIN".to_owned()];
    assert_eq!(spec.placement, Some(Placement { node_selector: selector, capabilities, ..Placement::default() }));
    assert_eq!(
        (spec.activation_id, spec.event_uuid, spec.service),
        (before.activation_id, before.event_uuid, before.service)
    );
}

// OFF-21
#[test]
fn flows_are_found_by_every_label_of_the_original() {
    let spec = json!({"action": "/guest/ping", "image": "i", "eventUUID": "e 9", "roVimVmName": "vm",
        "placement": {"nodeSelector": {"processor": "gpu"}}});
    let flow = flow(spec, json!({"jobID": "j"}));
    for (name, value) in [
        ("event_uuid", "e 9"),
        ("ro_vim_vm_name", "vm"),
        ("ow_action", "guest_ping"),
        ("FAAS_processor", "gpu"),
        ("jobId", "j"),
        ("flowId", "11111111222233334444555555555555"),
        ("job-type", "ow-offload-job"),
    ] {
        assert!(delete::has_label(&flow, name, value), "{name}");
        assert!(!delete::has_label(&flow, name, "another"), "{name}");
    }
    assert!(!delete::has_label(&flow, "unknown", ""));
}

// OFF-20
#[test]
fn values_that_count_as_nothing_are_written_all_the_same() {
    for (value, file) in [
        (json!(""), ""),
        (json!(0), "0"),
        (json!(false), "false"),
        (json!(null), ""),
        (json!("10.244.4.8"), "10.244.4.8"),
        (json!({"a": 1}), "{\"a\":1}"),
    ] {
        assert_eq!(conf::entry(Some(&value)), file);
    }
    assert_eq!(conf::entry(None), "");
}

#[test]
fn a_flow_is_at_the_address_of_its_pod_and_of_its_service() {
    let status = json!({"podIP": "10.64.0.7", "hostIP": "192.0.2.1", "service": {"name": "s", "clusterIP": "10.96.0.9", "ports": []}});
    let flow = flow(json!({"action": "a", "image": "i"}), status);
    assert!(conf::is_at(&flow, "10.64.0.7") && conf::is_at(&flow, "10.96.0.9"));
    assert!(!conf::is_at(&flow, "192.0.2.1"), "other flows have this address as well");
}

fn answer(method: &str, path: &str, body: &str) -> http::Response<bytes::Bytes> {
    wasm_operator_sdk::runtime::block_on(async {
        let facade = Facade { client: wasm_operator_sdk::client(), settings: Settings::default() };
        let request = Request::builder().method(method).uri(path).body(Bytes::copy_from_slice(body.as_bytes()));
        facade.answer(&request.unwrap()).await
    })
}

// OFF-01
#[test]
fn hello_greets() {
    let response = answer("GET", "/hello", "");
    assert_eq!(response.status(), 200);
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert!(text.starts_with("Greetings") && text.contains("OSM Version: N/A") && text.contains("0.2.7"), "{text}");
}

#[test]
fn what_is_not_there_is_404_and_what_is_there_otherwise_405() {
    for (method, path, status) in [
        ("GET", "/", 404),
        ("POST", "/", 404),
        ("POST", "/offload/", 404),
        ("POST", "/Offload", 404),
        ("POST", "/conf/", 404),
        ("POST", "/conf/1.2.3.4/x", 404),
        ("POST", "/hello", 405),
        ("DELETE", "/hello", 405),
        ("GET", "/offload", 405),
        ("PUT", "/conf/1.2.3.4", 405),
    ] {
        assert_eq!(answer(method, path, "").status(), status, "{method} {path}");
    }
}

#[test]
fn calls_without_their_identifier_are_bad_requests() {
    for (path, name) in [
        ("/getPod", "flowId"),
        ("/getPodFromRoLabel", "ro_vim_vm_name"),
        ("/getNetworks", "flowId"),
        ("/deleteJob", "flowId"),
        ("/successfulJob", "flowId"),
        ("/failedJob", "flowId"),
        ("/deleteJobFromLabel", "label_name"),
        ("/getLogs", "jobId"),
    ] {
        let response = answer("POST", path, r#"{"value": {"unknown": 1}}"#);
        assert_eq!(response.status(), 400, "{path}");
        assert!(body(&response)["error"].as_str().unwrap().contains(name), "{path}");
    }
    assert_eq!(answer("POST", "/conf/1.2.3.4", r#"{"value": {"param_name": null}}"#).status(), 400);
}

#[test]
fn a_page_does_not_repeat_markup_of_the_caller() {
    let response = reply::of(Err(Fault::page(StatusCode::BAD_REQUEST, "<script>\"x\"&")));
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert!(text.contains("&lt;script&gt;&#34;x&#34;&amp;") && !text.contains("<script>"), "{text}");
}
