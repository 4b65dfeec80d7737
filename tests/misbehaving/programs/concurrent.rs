//! Uses what the SDK promises of its runtime, and fails with a message when a promise is broken: requests that run at once,
//! tokio timers with and without a request under way, spawned tasks. It reads its own ConfigMap and, if `data.slow` names
//! one, the path of an answer that takes longer than a second.
//!
//! Writes `{"concurrent": {"key", "timer", "late", "requests"}}` to stdout: by how many microseconds a timer of 20 ms was
//! late without a request, one of 100 ms beside a slow request, and how long ten requests at once took.

use std::sync::Arc;
use std::time::Duration;

use misbehaving::LABEL;
use misbehaving::guest::serde_json::{Value, json};
use tokio::time::Instant;
use wasm_operator_sdk::k8s_openapi::api::core::v1::ConfigMap;
use wasm_operator_sdk::kube::{Api, Error, ResourceExt};
use wasm_operator_sdk::{Action, ApiExt, Config, Controller, IntoGuest, Rule, client};

async fn reconcile(object: Arc<ConfigMap>, _: Arc<()>) -> Result<Action, String> {
    let api: Api<ConfigMap> = Api::namespaced(client(), &object.namespace().unwrap_or_default());
    let name = object.name_any();
    let text = |error: Error| error.to_string();

    let begin = Instant::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let timer = begin.elapsed().saturating_sub(Duration::from_millis(20));

    let begin = Instant::now();
    let spawned: Vec<_> = (0..5)
        .map(|_| {
            let (api, name) = (api.clone(), name.clone());
            tokio::spawn(async move { api.get(&name).await })
        })
        .collect();
    let (first, second, third, fourth, fifth) =
        tokio::try_join!(api.get(&name), api.get(&name), api.get_cached(&name), api.get(&name), api.get(&name))
            .map_err(text)?;
    for task in spawned {
        task.await.map_err(|error| error.to_string())?.map_err(text)?;
    }
    let requests = begin.elapsed();
    let uid = object.uid();
    if [Some(first), Some(second), third, Some(fourth), Some(fifth)]
        .iter()
        .any(|read| read.as_ref().and_then(ResourceExt::uid) != uid)
    {
        return Err("a read returned another object".to_owned());
    }

    let mut late = None;
    if let Some(path) = object.data.as_ref().and_then(|data| data.get("slow")) {
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let begin = Instant::now();
        let slow = tokio::time::timeout(Duration::from_millis(100), client().request::<Value>(request)).await;
        late = Some(begin.elapsed().saturating_sub(Duration::from_millis(100)).as_micros());
        if slow.is_ok() {
            return Err(format!("`{path}` answered within 100 ms"));
        }
    }
    println!(
        "{}",
        json!({"concurrent": {
            "key": format!("{}/{name}", object.namespace().unwrap_or_default()),
            "timer": timer.as_micros(),
            "late": late,
            "requests": requests.as_micros(),
        }})
    );
    Ok(Action::await_change())
}

fn setup() -> impl IntoGuest {
    Controller::<ConfigMap>::new(Config::default().labels(&format!("{LABEL}=concurrent")))
        .asks_for(Rule::on::<ConfigMap>().read())
        .run(reconcile, |_, _, _| Action::await_change(), Arc::new(()))
}

wasm_operator_sdk::main!(setup);
