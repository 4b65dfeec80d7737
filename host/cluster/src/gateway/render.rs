//! Answers from the cache, in the server's form.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::json;
use wasm_operator_core::history::WatchEvent;
use wasm_operator_core::object::{Object, ResourceVersion, metadata_json};
use wasm_operator_core::request::{Refusal, ResourceRequest, Shape};
use wasm_operator_core::watch::Resource;

/// The groups that the API server itself serves. Items of their lists carry no `apiVersion` and `kind`; items of custom
/// resources do, and their lists have an empty `continue`.
const BUILT_IN_GROUPS: [&str; 24] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// One object.
pub(crate) fn object(object: &Object, shape: Shape) -> Vec<u8> {
    match shape {
        Shape::Full => object.json.to_vec(),
        Shape::Metadata | Shape::MetadataList => {
            let mut out = Vec::new();
            push_metadata(&mut out, metadata_json(&object.json));
            out
        }
    }
}

/// A list, in the order of the server: the bytes of `<namespace>/<name>`.
pub(crate) fn list(
    resource: &Resource,
    mut items: Vec<Arc<Object>>,
    position: &ResourceVersion,
    shape: Shape,
) -> Vec<u8> {
    items.sort_by(|a, b| by_key(a, b));
    let built_in = BUILT_IN_GROUPS.contains(&resource.group.as_str());
    let (api_version, kind) = match shape {
        Shape::Full => (resource.api_version(), format!("{}List", resource.kind)),
        Shape::Metadata | Shape::MetadataList => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
    };
    let metadata = match shape {
        Shape::Full if !built_in => json!({ "continue": "", "resourceVersion": position.as_str() }),
        _ => json!({ "resourceVersion": position.as_str() }),
    };
    let mut out = Vec::with_capacity(128 + items.iter().map(|item| item.json.len() + 1).sum::<usize>());
    out.extend_from_slice(
        format!(r#"{{"kind":{},"apiVersion":{},"metadata":{metadata},"items":["#, json!(kind), json!(api_version))
            .as_bytes(),
    );
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match shape {
            Shape::Full if built_in => push_without_type(&mut out, &item.json),
            Shape::Full => out.extend_from_slice(&item.json),
            Shape::Metadata | Shape::MetadataList => push_metadata(&mut out, metadata_json(&item.json)),
        }
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// One line of a watch. Objects carry their `apiVersion` and `kind` here, built-in kinds as well.
pub(crate) fn watch_event(out: &mut Vec<u8>, event: &WatchEvent, shape: Shape) {
    let WatchEvent { r#type, object, version } = event;
    // A deletion shows the last state with the version of the deletion.
    let dated = (*version != object.metadata.resource_version).then(|| object.json_at(version).ok()).flatten();
    let json = dated.as_deref().unwrap_or(&object.json);
    out.extend_from_slice(format!(r#"{{"type":"{}","object":"#, r#type.as_str()).as_bytes());
    match shape {
        Shape::Full => out.extend_from_slice(json),
        Shape::Metadata | Shape::MetadataList => push_metadata(out, metadata_json(json)),
    }
    out.extend_from_slice(b"}\n");
}

/// The line that tells how far a watch has come. `initial_end`: all objects that were there when it began have been sent.
pub(crate) fn bookmark(
    out: &mut Vec<u8>,
    resource: &Resource,
    shape: Shape,
    position: &ResourceVersion,
    initial_end: bool,
) {
    let (kind, api_version) = match shape {
        Shape::Full => (resource.kind.as_str(), resource.api_version()),
        Shape::Metadata | Shape::MetadataList => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
    };
    let mut metadata = json!({ "resourceVersion": position.as_str() });
    if let (true, Some(metadata)) = (initial_end, metadata.as_object_mut()) {
        metadata.insert("annotations".to_owned(), json!({ "k8s.io/initial-events-end": "true" }));
    }
    let object = json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
    push_line(out, "BOOKMARK", object.to_string().as_bytes());
}

/// The line that says why a watch ends.
pub(crate) fn error(out: &mut Vec<u8>, refusal: &Refusal) {
    push_line(out, "ERROR", &refusal.to_status());
}

fn push_line(out: &mut Vec<u8>, r#type: &str, object: &[u8]) {
    out.extend_from_slice(format!(r#"{{"type":"{type}","object":"#).as_bytes());
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// The server's answer for an object that is not there.
pub(crate) fn not_found(request: &ResourceRequest) -> Vec<u8> {
    let name = request.name.as_deref().unwrap_or_default();
    let resource = match request.group.as_str() {
        "" => request.plural.clone(),
        group => format!("{}.{group}", request.plural),
    };
    let mut details = json!({ "name": name, "kind": request.plural });
    if let (false, Some(details)) = (request.group.is_empty(), details.as_object_mut()) {
        details.insert("group".to_owned(), json!(request.group));
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("{resource} \"{name}\" not found"),
        "reason": "NotFound",
        "details": details,
        "code": 404,
    })
    .to_string()
    .into_bytes()
}

fn by_key(a: &Object, b: &Object) -> Ordering {
    let key = |object: &Object| {
        let namespace = object.metadata.namespace.clone();
        (namespace, object.metadata.name.clone())
    };
    let ((a_namespace, a_name), (b_namespace, b_name)) = (key(a), key(b));
    let bytes = |namespace: &Option<Arc<str>>, name: &Arc<str>| match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_string(),
    };
    if a_namespace == b_namespace {
        a_name.cmp(&b_name)
    } else {
        bytes(&a_namespace, &a_name).cmp(&bytes(&b_namespace, &b_name))
    }
}

fn push_metadata(out: &mut Vec<u8>, metadata: &[u8]) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(metadata);
    out.push(b'}');
}

/// Copies an object without its own `apiVersion` and `kind`, which stand first in what the server sends and in what the
/// cache adds.
fn push_without_type(out: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json.strip_prefix(b"{").unwrap_or(json);
    while let Some(after) = after_type_member(rest) {
        rest = after;
    }
    out.push(b'{');
    out.extend_from_slice(rest);
}

fn after_type_member(rest: &[u8]) -> Option<&[u8]> {
    let value = rest.strip_prefix(br#""apiVersion":""#).or_else(|| rest.strip_prefix(br#""kind":""#))?;
    let end = value.iter().position(|byte| *byte == b'"')?;
    let after = value.get(end + 1..)?;
    Some(after.strip_prefix(b",").unwrap_or(after))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use wasm_operator_core::request::ApiRequest;

    use super::*;

    fn resource(group: &str) -> Resource {
        Resource { group: group.into(), version: "v1".into(), kind: "ConfigMap".into(), plural: "configmaps".into() }
    }

    fn item(namespace: &str, name: &str) -> Arc<Object> {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"u","resourceVersion":"3"}},"data":{{"kind":"x"}}}}"#
        );
        Arc::new(Object::parse(json.as_bytes(), &resource("")).unwrap())
    }

    fn rendered(group: &str, items: Vec<Arc<Object>>, shape: Shape) -> Value {
        serde_json::from_slice(&list(&resource(group), items, &ResourceVersion::new("9"), shape)).unwrap()
    }

    // Rule 10
    #[test]
    fn a_list_has_the_form_of_the_servers() {
        let built_in = rendered("", vec![item("a", "x")], Shape::Full);
        assert_eq!(built_in["kind"], "ConfigMapList");
        assert_eq!(built_in["apiVersion"], "v1");
        assert_eq!(built_in["metadata"], json!({"resourceVersion": "9"}));
        assert_eq!(built_in["items"][0]["metadata"]["name"], "x");
        assert_eq!(built_in["items"][0].get("kind"), None);
        assert_eq!(built_in["items"][0].get("apiVersion"), None);
        assert_eq!(built_in["items"][0]["data"], json!({"kind": "x"}));

        let custom = rendered("example.com", vec![item("a", "x")], Shape::Full);
        assert_eq!(custom["metadata"], json!({"continue": "", "resourceVersion": "9"}));
        assert_eq!(custom["items"][0]["kind"], "ConfigMap");

        let metadata = rendered("", vec![item("a", "x")], Shape::MetadataList);
        assert_eq!(metadata["kind"], "PartialObjectMetadataList");
        assert_eq!(metadata["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(metadata["items"][0]["kind"], "PartialObjectMetadata");
        assert_eq!(metadata["items"][0].get("data"), None);
        assert_eq!(rendered("example.com", vec![], Shape::MetadataList)["metadata"], json!({"resourceVersion": "9"}));
        assert_eq!(rendered("", vec![], Shape::Full)["items"], json!([]));
    }

    #[test]
    fn items_are_in_the_order_of_the_bytes_of_namespace_and_name() {
        let items = vec![item("a", "x"), item("a-b", "x"), item("a", "a.b"), item("a", "a-b"), item("b", "a")];
        let list = rendered("", items, Shape::Full);
        let order: Vec<String> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| {
                format!("{}/{}", i["metadata"]["namespace"].as_str().unwrap(), i["metadata"]["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(order, ["a-b/x", "a/a-b", "a/a.b", "a/x", "b/a"]);
    }

    #[test]
    fn the_type_is_left_out_in_either_order() {
        for json in [
            r#"{"kind":"A","apiVersion":"v1","metadata":{}}"#,
            r#"{"apiVersion":"v1","kind":"A","metadata":{}}"#,
            r#"{"metadata":{}}"#,
        ] {
            let mut out = Vec::new();
            push_without_type(&mut out, json.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), r#"{"metadata":{}}"#);
        }
    }

    #[test]
    fn an_object_that_is_not_there_is_a_404_as_from_the_server() {
        let Ok(ApiRequest::Resource(request)) = ApiRequest::parse("GET", "/apis/apps/v1/namespaces/a/deployments/x")
        else {
            panic!()
        };
        let status: Value = serde_json::from_slice(&not_found(&request)).unwrap();
        assert_eq!(status["message"], "deployments.apps \"x\" not found");
        assert_eq!(status["details"], json!({"name": "x", "kind": "deployments", "group": "apps"}));
        assert_eq!(status["reason"], "NotFound");
        assert_eq!(status["code"], 404);
    }
}
