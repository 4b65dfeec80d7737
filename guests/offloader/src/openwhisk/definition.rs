//! An action as OpenWhisk describes it, and what it means here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use crate::api::{AntiAffinity, Placement, Resources};

/// The annotation of an action that says where it is to run.
const PLACEMENT: &str = "placement";
/// What marks a kind as one that needs a GPU.
const GPU_MARK: &str = "@gpu";
/// The resource that GPUs are.
const GPU: &str = "nvidia.com/gpu";
/// The capability that `action-security_context` stands for.
const NET_ADMIN: &str = "NET_ADMIN";

/// What an action runs as.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// The image.
    pub image: String,
    /// The kind, as OpenWhisk names it; none when the image was given.
    pub kind: Option<String>,
    /// The entry point.
    pub main: Option<String>,
    /// From the action's annotation.
    pub placement: Placement,
}

/// Why an action has no image. Its owner has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Sequences run nowhere themselves.
    #[error("Offloading a sequence is not supported")]
    Sequence,
    /// A kind that no image is known for.
    #[error("Unable to determine docker image to use for action kind: \"{0}\"")]
    Kind(String),
    /// Not the description of an action.
    #[error("OpenWhisk's answer does not describe an action: {0}")]
    Malformed(&'static str),
    /// A placement annotation that cannot be understood.
    #[error("the annotation `placement` of the action is {0}")]
    Placement(&'static str),
}

/// Reads the description of an action.
///
/// Kinds and their images are those of the original offload server; `@gpu` is the suffix of the GPU fork.
///
/// # Errors
/// When the action cannot run here.
pub fn decode(definition: &Value) -> Result<Resolution, Unsupported> {
    let exec = definition.get("exec").and_then(Value::as_object).ok_or(Unsupported::Malformed("it has no `exec`"))?;
    let text = |name: &str| exec.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let kind = text("kind").ok_or(Unsupported::Malformed("its `exec` has no `kind`"))?;
    let plain = kind.replace(GPU_MARK, "");
    let (image, main) = match plain.as_str() {
        "blackbox" => (text("image").ok_or(Unsupported::Malformed("a `blackbox` without an `image`"))?, text("main")),
        // Its container does not start without a name.
        "nodejs" | "nodejs:6" => {
            ("openwhisk/nodejs6action".to_owned(), text("main").or_else(|| Some("main".to_owned())))
        }
        "python" | "python:2" => ("openwhisk/python2action".to_owned(), text("main")),
        "python:3" => ("openwhisk/python3action".to_owned(), text("main")),
        "swift:3" => ("openwhisk/swift3action".to_owned(), text("main")),
        "java" => ("openwhisk/java8action".to_owned(), text("main")),
        "sequence" => return Err(Unsupported::Sequence),
        _ => return Err(Unsupported::Kind(kind)),
    };
    let annotations = definition.get("annotations").and_then(Value::as_array).into_iter().flatten();
    let annotation = annotations.into_iter().find(|one| one.get("key").and_then(Value::as_str) == Some(PLACEMENT));
    let mut placement = match annotation.and_then(|one| one.get("value")) {
        Some(value) => placement_of(value)?,
        None => Placement::default(),
    };
    if plain != kind {
        let count = definition.pointer("/limits/gpu").and_then(Value::as_u64).unwrap_or(1).max(1);
        let limits = BTreeMap::from([(GPU.to_owned(), Quantity(count.to_string()))]);
        placement.resources = Some(Resources { limits, requests: BTreeMap::new() });
    }
    Ok(Resolution { image, kind: Some(kind), main, placement })
}

/// Reads the value of a placement annotation: an object, or its text in JSON.
///
/// # Errors
/// When it is neither, or an entry has the wrong type.
pub fn placement_of(value: &Value) -> Result<Placement, Unsupported> {
    let parsed;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).map_err(|_| Unsupported::Placement("not JSON"))?;
            &parsed
        }
        other => other,
    };
    let entries = match value {
        Value::Null => return Ok(Placement::default()),
        Value::Object(entries) => entries,
        _ => return Err(Unsupported::Placement("not an object")),
    };
    let set = |name: &str| {
        matches!(entries.get(name), Some(Value::Bool(true)))
            || entries.get(name).and_then(Value::as_str) == Some("true")
    };
    let mut placement = Placement::default();
    match entries.get("invoker-selector") {
        None | Some(Value::Null) => {}
        Some(Value::Object(selector)) => {
            for (key, value) in selector {
                let value = value
                    .as_str()
                    .ok_or(Unsupported::Placement("odd: `invoker-selector` holds a value that is no text"))?;
                placement.node_selector.insert(key.clone(), value.to_owned());
            }
        }
        Some(_) => return Err(Unsupported::Placement("odd: `invoker-selector` is not an object")),
    }
    if set("action-antiaffinity") {
        placement.anti_affinity = AntiAffinity::SameSelector;
    }
    if set("action-security_context") {
        placement.capabilities.push(NET_ADMIN.to_owned());
    }
    Ok(placement)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_kind(kind: &str) -> Result<Resolution, Unsupported> {
        decode(&json!({"exec": {"kind": kind, "image": "mine:1", "code": "..."}}))
    }

    #[test]
    fn each_kind_has_its_image() {
        for (kind, image, main) in [
            ("blackbox", "mine:1", None),
            ("nodejs", "openwhisk/nodejs6action", Some("main")),
            ("nodejs:6", "openwhisk/nodejs6action", Some("main")),
            ("python", "openwhisk/python2action", None),
            ("python:2", "openwhisk/python2action", None),
            ("python:3", "openwhisk/python3action", None),
            ("swift:3", "openwhisk/swift3action", None),
            ("java", "openwhisk/java8action", None),
        ] {
            let found = of_kind(kind).unwrap();
            assert_eq!((found.image.as_str(), found.main.as_deref()), (image, main), "{kind}");
            assert_eq!(found.kind.as_deref(), Some(kind));
        }
    }

    #[test]
    fn sequences_and_other_kinds_are_refused() {
        assert_eq!(of_kind("sequence"), Err(Unsupported::Sequence));
        for kind in ["python:3.11", "go:1.22", "BLACKBOX"] {
            assert_eq!(of_kind(kind), Err(Unsupported::Kind(kind.to_owned())));
        }
        assert!(matches!(of_kind(""), Err(Unsupported::Malformed(_))));
    }

    #[test]
    fn answers_that_describe_no_action_are_refused() {
        for odd in [
            json!(null),
            json!([]),
            json!({}),
            json!({"exec": "x"}),
            json!({"exec": {"kind": 3}}),
            json!({"exec": {"kind": "blackbox"}}),
        ] {
            assert!(matches!(decode(&odd), Err(Unsupported::Malformed(_))), "{odd}");
        }
    }

    #[test]
    fn the_placement_annotation_is_understood() {
        let value = json!({"invoker-selector": {"processor": "gpu"}, "action-antiaffinity": "true", "action-security_context": "true"});
        let action = json!({"exec": {"kind": "blackbox", "image": "i:1"}, "annotations": [{"key": "a", "value": 1}, {"key": "placement", "value": value}]});
        let placement = decode(&action).unwrap().placement;
        assert_eq!(placement.node_selector, [("processor".to_owned(), "gpu".to_owned())].into());
        assert_eq!(placement.anti_affinity, AntiAffinity::SameSelector);
        assert_eq!(placement.capabilities, ["NET_ADMIN"]);
        assert_eq!(placement_of(&Value::String(value.to_string())), Ok(placement));
    }

    #[test]
    fn an_odd_placement_is_refused() {
        for odd in [json!(3), json!("{"), json!({"invoker-selector": "gpu"}), json!({"invoker-selector": {"a": 1}})] {
            assert!(matches!(placement_of(&odd), Err(Unsupported::Placement(_))), "{odd}");
        }
        let plain = json!({"action-antiaffinity": "yes", "action-security_context": false});
        assert_eq!(placement_of(&plain), Ok(Placement::default()));
    }

    #[test]
    fn a_gpu_kind_asks_for_gpus() {
        let limits = |definition: Value| decode(&definition).unwrap().placement.resources.unwrap().limits;
        assert_eq!(limits(json!({"exec": {"kind": "python:3@gpu"}}))["nvidia.com/gpu"], Quantity("1".to_owned()));
        let two = json!({"exec": {"kind": "blackbox@gpu", "image": "i"}, "limits": {"gpu": 2}});
        assert_eq!(limits(two)["nvidia.com/gpu"], Quantity("2".to_owned()));
    }
}
