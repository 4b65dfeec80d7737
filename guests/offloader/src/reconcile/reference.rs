//! What a flow refers to: its target, the target's key, sources of parameters, and OpenWhisk itself.

use std::collections::BTreeMap;

use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::client::Body;
use kube::{Api, ResourceExt as _};
use serde_json::{Map, Value, json};
use wasm_operator_sdk::{ApiExt as _, conditions};

use super::{Context, Error};
use crate::api::{ConfigSource, OffloadTarget, OffloadTargetSpec, OffloadedAction, Phase, condition, reason};
use crate::openwhisk::{self, Connection, Outcome, Resolution, Unsupported};
use crate::params::{self, Params, Source};
use crate::plan::Refusal;
use crate::{children, ids};

/// A target with its key.
pub(crate) struct Target {
    pub(crate) connection: Connection,
    pub(crate) api_key: String,
}

/// The inner error is for the user; the outer one is worth another attempt.
type Answer<T> = Result<Result<T, Refusal>, Error>;

fn refusal(reason: &'static str, transient: bool, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into(), transient }
}

/// The connection to a target, with the key from its Secret.
pub(crate) async fn connect(namespace: &str, target: &OffloadTargetSpec, context: &Context) -> Answer<Target> {
    let reference = &target.auth_secret_ref;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("read Secret `{}`", reference.name);
    let Some(secret) = secrets.get_opt(&reference.name).await.map_err(Error::to(what))? else {
        let message = format!("Secret `{}` with the key of the target does not exist", reference.name);
        return Ok(Err(refusal(reason::REFERENCE_INVALID, true, message)));
    };
    let key = secret.data.unwrap_or_default().remove(&reference.key).and_then(|key| String::from_utf8(key.0).ok());
    let Some(api_key) = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()) else {
        let message = format!("Secret `{}` has no text `{}`", reference.name, reference.key);
        return Ok(Err(refusal(reason::REFERENCE_INVALID, true, message)));
    };
    let connection = Connection::new(context.client.clone(), &target.api_host, &api_key, &target.default_namespace);
    Ok(Ok(Target { connection, api_key }))
}

/// The target of a flow; none if it has none.
pub(crate) async fn target_of(action: &OffloadedAction, context: &Context) -> Answer<Option<Target>> {
    let Some(reference) = &action.spec.target_ref else { return Ok(Ok(None)) };
    let namespace = action.namespace().unwrap_or_default();
    let targets: Api<OffloadTarget> = Api::namespaced(context.client.clone(), &namespace);
    let what = format!("read OffloadTarget `{}`", reference.name);
    match targets.get_cached(&reference.name).await.map_err(Error::to(what))? {
        Some(target) => Ok(connect(&namespace, &target.spec, context).await?.map(Some)),
        // Its creation is an event.
        None => {
            let message = format!("OffloadTarget `{}` does not exist", reference.name);
            Ok(Err(refusal(reason::TARGET_NOT_FOUND, false, message)))
        }
    }
}

/// What the action runs as, if everything that it refers to is there.
pub(super) async fn resolve(action: &OffloadedAction, context: &Context) -> Answer<Resolution> {
    if action.spec.push_conf && context.settings.conf_image.is_none() {
        let message = "`pushConf` needs a side container, whose image the guest's variable `OW_OFFLOAD_IMAGE` names";
        return Ok(Err(refusal(reason::REFERENCE_INVALID, false, message)));
    }
    if let Err(refusal) = params_of(action, context).await? {
        return Ok(Err(refusal));
    }
    let target = match target_of(action, context).await? {
        Ok(target) => target,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match (&action.spec.image, target) {
        (Some(image), _) => Ok(Ok(Resolution { image: image.clone(), ..Resolution::default() })),
        (None, Some(target)) => Ok(look_up(action, &target.connection).await),
        (None, None) => Ok(Err(refusal(reason::REFERENCE_INVALID, false, "there is neither an image nor a target"))),
    }
}

async fn look_up(action: &OffloadedAction, connection: &Connection) -> Result<Resolution, Refusal> {
    let name = children::name_of(action, connection.namespace());
    let name = name.map_err(|error| refusal(reason::ACTION_NOT_FOUND, false, error.to_string()))?;
    let later = |message: String| refusal(reason::LOOKUP_FAILED, true, message);
    let reply = connection.action(&name).await.map_err(|error| later(error.to_string()))?;
    let failed = |why: &'static str, transient| refusal(why, transient, format!("`{name}`: {}", reply.message()));
    match reply.status.as_u16() {
        200 => {}
        401 | 403 => return Err(failed(reason::UNAUTHORIZED, false)),
        404 => return Err(failed(reason::ACTION_NOT_FOUND, false)),
        _ => return Err(failed(reason::LOOKUP_FAILED, true)),
    }
    let definition = reply.json().ok_or_else(|| later(format!("`{name}`: OpenWhisk's answer is not JSON")))?;
    openwhisk::decode(&definition).map_err(|unsupported| {
        let why = match unsupported {
            Unsupported::Sequence => reason::SEQUENCE_NOT_SUPPORTED,
            Unsupported::Kind(_) | Unsupported::Malformed(_) | Unsupported::Placement(_) => reason::UNSUPPORTED_KIND,
        };
        refusal(why, false, unsupported.to_string())
    })
}

/// The action's parameters with those from other objects.
pub(super) async fn params_of(action: &OffloadedAction, context: &Context) -> Answer<Params> {
    let namespace = action.namespace().unwrap_or_default();
    let mut sources = Vec::new();
    for source in &action.spec.params_from {
        let read = match (&source.secret_ref, &source.config_map_ref) {
            (Some(from), _) => from_secret(&namespace, from, context).await?,
            (None, Some(from)) => from_config_map(&namespace, from, context).await?,
            (None, None) => continue,
        };
        match read {
            Ok(read) => sources.push(read),
            Err(message) => return Ok(Err(refusal(reason::REFERENCE_INVALID, true, message))),
        }
    }
    let merged = params::merge(&action.spec, sources, context.settings.large_bytes);
    Ok(merged.map_err(|error| refusal(reason::REFERENCE_INVALID, false, error.to_string())))
}

async fn from_secret(namespace: &str, from: &ConfigSource, context: &Context) -> Result<Result<Source, String>, Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("read Secret `{}`", from.name);
    let Some(secret) = secrets.get_opt(&from.name).await.map_err(Error::to(what))? else {
        return Ok(Err(format!("Secret `{}` with parameters does not exist", from.name)));
    };
    let texts = secret.data.unwrap_or_default().into_iter();
    let texts = texts.filter_map(|(name, value)| Some((name, String::from_utf8(value.0).ok()?))).collect();
    Ok(values("Secret", from, texts).map(|values| Source { values, secret: true }))
}

async fn from_config_map(
    namespace: &str,
    from: &ConfigSource,
    context: &Context,
) -> Result<Result<Source, String>, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("read ConfigMap `{}`", from.name);
    let Some(map) = maps.get_opt(&from.name).await.map_err(Error::to(what))? else {
        return Ok(Err(format!("ConfigMap `{}` with parameters does not exist", from.name)));
    };
    Ok(values("ConfigMap", from, map.data.unwrap_or_default()).map(|values| Source { values, secret: false }))
}

fn values(kind: &str, from: &ConfigSource, texts: BTreeMap<String, String>) -> Result<Map<String, Value>, String> {
    let Some(key) = &from.key else {
        return Ok(texts.into_iter().map(|(name, text)| (name, Value::String(text))).collect());
    };
    let text = texts.get(key).ok_or_else(|| format!("{kind} `{}` has no entry `{key}`", from.name))?;
    serde_json::from_str(text).map_err(|_| format!("`{key}` of {kind} `{}` is not a JSON object", from.name))
}

/// Calls a completion endpoint. An inner error is what it said instead of an acknowledgement.
pub(super) async fn deliver(
    action: &OffloadedAction,
    index: usize,
    context: &Context,
) -> Result<Result<(), String>, Error> {
    let status = action.status.clone().unwrap_or_default();
    let Some(delivery) = status.deliveries.get(index) else { return Ok(Ok(())) };
    let target = match target_of(action, context).await? {
        Ok(Some(target)) => target,
        Ok(None) => return Ok(Err("the flow has no target any more".to_owned())),
        Err(refusal) => return Ok(Err(refusal.message)),
    };
    let path = match openwhisk::path(&delivery.endpoint, target.connection.namespace()) {
        Ok(path) => path,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let failed = conditions::get(&status.conditions, condition::FAILED).filter(|known| known.status == "True");
    let error = failed.map(|known| format!("{}: {}", known.reason, known.message));
    let outcome = match &error {
        Some(error) => Outcome::Error(error),
        None if status.phase == Phase::Succeeded || status.result.is_some() => Outcome::Result(status.result.as_ref()),
        None => Outcome::Result(None),
    };
    let flow_id = ids::flow_id(action);
    let logs = status.log_tail.as_deref().unwrap_or_default();
    let payload = openwhisk::payload(outcome, &flow_id, &action.spec.activation_id, logs);
    // Each endpoint knows only its own calls, so that the flow alone tells two calls apart.
    Ok(match target.connection.call(&path, &payload, &flow_id).await {
        Ok(reply) if reply.status.is_success() => Ok(()),
        Ok(reply) => Err(reply.message()),
        Err(error) => Err(error.to_string()),
    })
}

/// Sends entries of the runtime configuration to the side container at an address.
pub(super) async fn push(address: &str, entries: &BTreeMap<String, String>, context: &Context) -> Result<(), String> {
    for (name, value) in entries {
        let request = Request::post(format!("http://{address}/conf/{name}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(json!({ "value": value }).to_string().into_bytes()))
            .map_err(|error| format!("`{name}` cannot be sent to `{address}`: {error}"))?;
        let answer = context.client.send(request).await;
        let answer = answer.map_err(|error| format!("`{name}` cannot be sent to `{address}`: {error}"))?;
        if !answer.status().is_success() {
            return Err(format!("the side container at `{address}` answers {} to `{name}`", answer.status()));
        }
    }
    Ok(())
}
