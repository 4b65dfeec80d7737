//! The ring benchmark's controller as its users would write it with kube-rs: a `Controller`, a reflector's store, and a
//! `main` that runs both.

mod ballast;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ballast::Ballast;
use futures::{StreamExt as _, future};
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use resource::TestResource;
use wasm_operator_client::{client, watcher_config};

struct Context {
    client: Client,
    out: String,
    targets: Store<TestResource>,
}

/// Reads both objects from a cache and sends one PUT.
async fn reconcile(object: Arc<TestResource>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let name = object.name_any();
    let there = context.targets.get(&ObjectRef::new(&name).within(&context.out));
    if let Some(next) = object.passed_on(&context.out, there.as_deref()) {
        let api: Api<TestResource> = Api::namespaced(context.client.clone(), &context.out);
        match there {
            Some(_) => api.replace(&name, &PostParams::default(), &next).await?,
            None => api.create(&PostParams::default(), &next).await?,
        };
    }
    Ok(Action::await_change())
}

fn error_policy(_: Arc<TestResource>, error: &kube::Error, _: Arc<Context>) -> Action {
    tracing::warn!(%error, "not passed on");
    Action::requeue(Duration::from_secs(1))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let variable = |name: &str| std::env::var(name).with_context(|| format!("set the environment variable `{name}`"));
    let (from, out) = (variable("IN_NAMESPACE")?, variable("OUT_NAMESPACE")?);
    let _ballast = Ballast::from_text(std::env::var("HEAP_MEM_SIZE").ok().as_deref())?;
    let client = client().await?;

    let (targets, writer) = reflector::store();
    let follow = watcher(Api::namespaced(client.clone(), &out), watcher_config())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .for_each(|_| future::ready(()));
    let api: Api<TestResource> = Api::namespaced(client.clone(), &from);
    let context = Arc::new(Context { client, out, targets: targets.clone() });
    let controller = async move {
        targets.wait_until_ready().await?;
        let run = Controller::new(api, watcher_config())
            .shutdown_on_signal()
            .run(reconcile, error_policy, context)
            .for_each(|_| future::ready(()));
        run.await;
        anyhow::Ok(())
    };
    tokio::select! {
        () = follow => Ok(()),
        ended = controller => ended,
    }
}
