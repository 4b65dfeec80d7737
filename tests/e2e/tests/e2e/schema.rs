//! The schema of a guest as that of a custom resource.

use harness::{Result, Space, command, output, test};
use kube::core::Status;
use serde_json::{Value, json};

const GROUP: &str = "schema.wasm-operator.dev";

async fn install(space: &Space) -> Result<()> {
    let schema: Value = serde_json::from_str(&output(command(&["schema", "--structural"])?)?.success()?)?;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("guests.{GROUP}") },
        "spec": {
            "group": GROUP, "scope": "Cluster", "names": { "kind": "Guest", "plural": "guests" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "required": ["spec"], "properties": { "spec": schema } } },
            }],
        },
    });
    space.cluster().install(&crd.to_string()).await
}

/// What the API server says of a guest; None: it is accepted.
async fn server_refuses(space: &Space, guest: &Value) -> Result<Option<String>> {
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "Guest", "metadata": { "name": "guest" }, "spec": guest,
    });
    let path = format!("/apis/{GROUP}/v1/guests?dryRun=All&fieldValidation=Strict");
    let request = http::Request::post(path).header("content-type", "application/json");
    match space.client().request::<Value>(request.body(object.to_string().into_bytes())?).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => {
            let Status { code, message, .. } = *status;
            assert!([400, 422].contains(&code), "{code}: {message}");
            Ok(Some(message))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the host says of it as a document of its configuration.
fn host_refuses(space: &Space, guest: &Value) -> Result<Option<String>> {
    let file = space.directory().join("wasm_config.yaml");
    std::fs::write(&file, guest.to_string())?;
    let mut validate = command(&["validate", "--no-components"])?;
    validate.arg(file);
    let output = output(validate)?;
    Ok((output.code != 0).then_some(output.stderr))
}

fn with(field: &str, value: Value) -> Value {
    json!({ "name": "guest", "wasm": "./guest.wasm", (field): value })
}

#[test]
fn the_api_server_takes_the_schema_and_judges_guests_as_the_host_does() -> Result<()> {
    test(async |space| {
        install(space).await?;
        let rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
        let mut narrow = rule.clone();
        narrow["namespaces"] = json!(["a"]);
        narrow["resourceNames"] = json!(["b"]);
        let digest = "0123456789abcdef".repeat(4);
        let good = [
            json!({ "name": "guest", "wasm": "./guest.wasm" }),
            with("permissions", json!([])),
            with("permissions", json!([rule, narrow])),
            with("permissions", json!("as-requested")),
            with("permissions", json!(format!("as-requested@sha256:{digest}"))),
            with("env", json!([{ "name": "A", "value": "b" }, { "name": "B" }])),
            with("args", json!(["a"])),
            with("serviceAccount", json!("team/guest")),
            with("limits", json!({ "memoryBytes": 67_108_864 })),
            with("sleep", json!({ "mode": "Fixed", "idleAfter": "1m30s" })),
            with("concurrency", json!(256)),
            with("allowedHosts", json!(["api.example.com:8443"])),
            with("resync", json!("10h")),
            with("suspend", json!(true)),
            with("adoptFieldManager", json!("kubectl")),
        ];
        for guest in &good {
            assert_eq!(server_refuses(space, guest).await?, None, "{guest}");
            assert_eq!(host_refuses(space, guest)?, None, "{guest}");
        }
        let bad = [
            json!({ "name": "guest" }),
            json!({ "name": "Guest", "wasm": "./guest.wasm" }),
            with("permissions", json!("requested")),
            with("permissions", json!(format!("as-requested@sha256:{digest}0"))),
            with("permissions", json!(1)),
            with("permissions", json!(-0.5)),
            with("permissions", json!(true)),
            with("permissions", json!(false)),
            with("permissions", json!({})),
            with("permissions", rule.clone()),
            with("permissions", json!(["as-requested"])),
            with("permissions", json!([{ "apiGroups": [""], "resources": ["pods"] }])),
            with("permissions", json!([{ "apiGroups": "", "resources": ["pods"], "verbs": ["get"] }])),
            with("premissions", json!([])),
            with("env", json!([{ "value": "b" }])),
            with("serviceAccount", json!("Team/guest")),
            with("limits", json!({ "memoryBytes": -1 })),
            with("limits", json!({ "memoryByte": 1 })),
            with("sleep", json!({ "mode": "Sometimes" })),
            with("sleep", json!({ "mode": "Fixed", "idleAfter": "1 day" })),
            with("concurrency", json!(0)),
            with("weight", json!(10_001)),
            with("resync", json!(10)),
            with("suspend", json!("yes please")),
            with("adoptFieldManager", json!("")),
        ];
        for guest in &bad {
            assert!(server_refuses(space, guest).await?.is_some(), "the API server accepts {guest}");
            assert!(host_refuses(space, guest)?.is_some(), "the host accepts {guest}");
        }
        Ok(())
    })
}
