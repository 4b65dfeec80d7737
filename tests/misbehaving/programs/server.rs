//! Answers HTTP requests behind the front door, as the path says; built on the SDK's `serve`.
//!
//! | Path | Answer |
//! |---|---|
//! | `/slow?milliseconds=N` | after so many milliseconds |
//! | `/spin` | loops without a host call |
//! | `/trap` | traps |
//! | `/exit` | calls `exit(3)` |
//! | `/large?bytes=N` | a body of so many bytes |
//! | `/status?code=N` | that status, with every header that a guest must not set |
//! | `/config-map?name=N` | reads that ConfigMap of its first namespace with its own rights, and says the status |
//! | `/write?name=N` | applies that ConfigMap |
//! | anything else | what it got, as JSON: method, path, headers, caller, bytes of the body and the body |
//!
//! It writes `serving <path>` to stdout when a request begins. A reconcile does nothing.

use std::sync::Arc;
use std::time::Duration;

use misbehaving::LABEL;
use misbehaving::guest::serde_json::json;
use wasm_operator_sdk::k8s_openapi::api::core::v1::ConfigMap;
use wasm_operator_sdk::kube::{Api, Error};
use wasm_operator_sdk::serve::{Bytes, Caller, http};
use wasm_operator_sdk::{Action, ApiExt, Config, Controller, IntoGuest, Rule, client};

fn namespace() -> String {
    let all = std::env::var("NAMESPACES").unwrap_or_default();
    all.split(',').next().unwrap_or_default().to_owned()
}

fn parameter(request: &http::Request<Bytes>, name: &str) -> String {
    let query = request.uri().query().unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    value.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

fn echo(request: &http::Request<Bytes>) -> http::Response<Bytes> {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let caller =
        Caller::of(request).map(|caller| json!({"user": caller.user, "uid": caller.uid, "groups": caller.groups}));
    let body = json!({
        "method": request.method().as_str(),
        "path": request.uri().to_string(),
        "headers": headers,
        "caller": caller,
        "bytes": request.body().len(),
        "body": String::from_utf8_lossy(request.body().get(..request.body().len().min(1024)).unwrap_or_default()),
    });
    http::Response::builder().header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

async fn status_of(name: &str, write: bool) -> String {
    let api: Api<ConfigMap> = Api::namespaced(client(), &namespace());
    let result = if write {
        let object = ConfigMap {
            metadata: wasm_operator_sdk::kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            ..ConfigMap::default()
        };
        api.apply(&object).await
    } else {
        api.get(name).await
    };
    match result {
        Ok(_) => "200".to_owned(),
        Err(Error::Api(status)) => status.code.to_string(),
        Err(error) => error.to_string(),
    }
}

async fn handle(request: http::Request<Bytes>) -> http::Response<Bytes> {
    println!("serving {}", request.uri().path());
    let number = |name: &str| parameter(&request, name).parse::<u64>().unwrap_or_default();
    let text = |text: String| http::Response::new(Bytes::from(text));
    match request.uri().path() {
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number("milliseconds"))).await;
            text("slow".to_owned())
        }
        "/spin" => loop {
            std::hint::spin_loop();
        },
        "/trap" => std::process::abort(),
        "/exit" => std::process::exit(3),
        "/large" => text("x".repeat(usize::try_from(number("bytes")).unwrap())),
        "/status" => http::Response::builder()
            .status(u16::try_from(number("code")).unwrap())
            .header("set-cookie", "a=b")
            .header("alt-svc", "h3=\":443\"")
            .header("service-worker-allowed", "/")
            .header("strict-transport-security", "max-age=1")
            .header("content-security-policy", "default-src *")
            .header("x-wasm-operator-user", "root")
            .header("x-custom", "kept")
            .body(Bytes::from_static(b"status"))
            .unwrap(),
        "/config-map" => text(status_of(&parameter(&request, "name"), false).await),
        "/write" => text(status_of(&parameter(&request, "name"), true).await),
        _ => echo(&request),
    }
}

fn setup() -> impl IntoGuest {
    Controller::<ConfigMap>::new(Config::default().labels(&format!("{LABEL}=server")).in_namespaces([namespace()]))
        .asks_for(Rule::on::<ConfigMap>().apply())
        .run(|_, _| async { Ok::<_, String>(Action::await_change()) }, |_, _, _| Action::await_change(), Arc::new(()))
}

wasm_operator_sdk::main!(setup, serve = handle);
