//! What legacy clients send, as a spec.

use http::StatusCode;
use serde_json::{Map, Value};

use super::reply::Fault;
use crate::api::{Completion, OffloadedActionSpec, Placement, Port, Protocol, ServiceSource, ServiceType};
use crate::openwhisk;
use crate::settings::Settings;

/// The annotation of a reconfiguration that holds a placement.
const PLACEMENT: &str = "placement";

/// What `/offload` and `/reconfigure` are given.
#[derive(Clone, PartialEq)]
pub(super) struct Call {
    pub(super) api_host: String,
    pub(super) api_key: String,
    /// The namespace of names without a slash.
    pub(super) namespace: String,
    /// The spec that it stands for, without target.
    pub(super) spec: OffloadedActionSpec,
    /// From `coe_action_params.annotations`; only `/reconfigure` reads it.
    pub(super) placement: Option<Placement>,
    /// Which of `activationId`, `ro_vim_vm_name` and `event_uuid` were given.
    pub(super) given: [bool; 3],
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key and the parameters are nobody's business.
        f.debug_struct("Call")
            .field("api_host", &self.api_host)
            .field("action", &self.spec.action)
            .finish_non_exhaustive()
    }
}

/// `value` of a body. What is not JSON counts as an empty body, as the original has it.
pub(super) fn value(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    let bad = |message: &str| Fault::page(StatusCode::BAD_REQUEST, message);
    let mut message = match serde_json::from_slice::<Value>(body).unwrap_or_default() {
        Value::Object(message) => message,
        empty if is_empty(&empty) => return Ok(Map::new()),
        _ => return Err(bad("message payload is not a dictionary")),
    };
    match message.remove("value") {
        None => Ok(Map::new()),
        Some(Value::Object(value)) => Ok(value),
        Some(_) => Err(bad("message payload did not provide binding for \"value\"")),
    }
}

/// Python's idea of falsehood.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

/// A text that must be there.
pub(super) fn text(value: &Map<String, Value>, name: &str) -> Option<String> {
    match value.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        // Labels and identifiers are compared as text, whatever a client's language makes of them.
        other => Some(other.to_string()),
    }
}

/// `flowId`, which most calls need.
pub(super) fn flow_id(value: &Map<String, Value>, path: &str) -> Result<String, Fault> {
    text(value, "flowId").ok_or_else(|| Fault::bad_request(format!("Did not receive flowId for {path} route.")))
}

/// Reads the value of `/offload` or `/reconfigure`.
pub(super) fn offload(value: &Map<String, Value>, settings: &Settings) -> Result<Call, Fault> {
    let required = |name: &str| {
        text(value, name)
            .ok_or_else(|| Fault::page(StatusCode::BAD_REQUEST, format!("Required parameter \"{name}\" not provided")))
    };
    let (api_host, api_key, action) = (required("owAPIHost")?, required("owAPIKey")?, required("action")?);
    let or = |name: &str, default: &str| text(value, name).unwrap_or_else(|| default.to_owned());
    let empty = Map::new();
    let coe = match value.get("coe_action_params") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(coe)) => coe,
        Some(_) => return Err(Fault::internal("`coe_action_params` is not an object")),
    };
    let params = match coe.get("action_params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(_) => return Err(Fault::internal("`action_params` is not an object")),
    };
    let endpoints = |name: &str| text(value, name).into_iter().collect::<Vec<String>>();
    let completion = Completion { triggers: endpoints("completionTrigger"), actions: endpoints("completionAction") };
    let has_completion = !completion.triggers.is_empty() || !completion.actions.is_empty();
    let spec = OffloadedActionSpec {
        action,
        target_ref: None,
        image: None,
        activation_id: or("activationId", "42"),
        ro_vim_vm_name: or("ro_vim_vm_name", "na"),
        event_uuid: or("event_uuid", "na"),
        params,
        params_from: Vec::new(),
        // `/conf/<ip>` may come at any time, and must not need a new pod.
        runtime_conf: Some(std::collections::BTreeMap::new()),
        push_conf: settings.conf_image.is_some(),
        service: service(coe)?,
        placement: None,
        completion: has_completion.then_some(completion),
        time_limit_seconds: settings.time_limit_seconds,
        backoff_limit: 0,
        keep_failed: settings.keep_failed,
        ttl_seconds_after_finished: i64::from(i32::MAX),
        suspend: false,
        network_policy: None,
        reconfigure_timeout_seconds: 55,
    };
    let given = ["activationId", "ro_vim_vm_name", "event_uuid"].map(|name| text(value, name).is_some());
    Ok(Call { api_host, api_key, namespace: or("namespace", "_"), spec, placement: placement(coe)?, given })
}

fn service(coe: &Map<String, Value>) -> Result<ServiceSource, Fault> {
    let type_ = match coe.get("service_type") {
        None => ServiceType::NodePort,
        Some(empty) if is_empty(empty) => ServiceType::None,
        Some(Value::String(name)) if name.eq_ignore_ascii_case("nodeport") => ServiceType::NodePort,
        Some(Value::String(name)) if name.eq_ignore_ascii_case("clusterip") => ServiceType::ClusterIP,
        Some(_) => return Err(Fault::internal("Illegal service_type. Supported values: ClusterIP, NodePort")),
    };
    let ports = match coe.get("service_ports") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(ports)) => ports.iter().map(port).collect::<Result<_, _>>()?,
        Some(_) => return Err(Fault::internal("`service_ports` is not a list")),
    };
    Ok(ServiceSource { type_, ports })
}

/// `5000`, `"5000"`, `"6000/udp"` or `"6000/UDP"`.
fn port(value: &Value) -> Result<Port, Fault> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (number, protocol) = match text.split_once('/') {
        Some((number, "udp" | "UDP")) => (number, Protocol::Udp),
        _ => (text.as_str(), Protocol::Tcp),
    };
    match number.trim().parse::<u16>() {
        Ok(port) if port != 0 => Ok(Port { port, protocol }),
        _ => Err(Fault::internal(format!("`{text}` is not a port"))),
    }
}

fn placement(coe: &Map<String, Value>) -> Result<Option<Placement>, Fault> {
    let annotations = coe.get("annotations").and_then(Value::as_array).into_iter().flatten();
    let found = annotations.into_iter().find(|one| one.get("key").and_then(Value::as_str) == Some(PLACEMENT));
    let value = found.and_then(|annotation| annotation.get("value"));
    value.map(openwhisk::placement_of).transpose().map_err(Fault::internal)
}
