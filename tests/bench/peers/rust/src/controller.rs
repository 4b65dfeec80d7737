//! The usual way: `Controller`, and a reflector's store to read from.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, future};
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Duration;

use crate::Pair;
use crate::resource::TestResource;

/// What kube's documentation uses in its examples of shared streams.
const SHARED_BUFFER: usize = 256;

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

/// One controller in its two namespaces.
pub(crate) async fn one(client: Client, pair: Pair) -> anyhow::Result<()> {
    let (targets, writer) = reflector::store();
    let targets_api: Api<TestResource> = Api::namespaced(client.clone(), &pair.out);
    let follow = watcher(targets_api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .for_each(|_| future::ready(()));
    let api = Api::namespaced(client.clone(), &pair.from);
    let wait = targets.clone();
    let context = Arc::new(Context { client, out: pair.out, targets });
    let controller = async move {
        wait.wait_until_ready().await?;
        let run = Controller::new(api, watcher::Config::default())
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

/// A controller for each pair; one watch and one store for all of them.
pub(crate) async fn all(client: Client, pairs: Vec<Pair>) -> anyhow::Result<()> {
    let (store, writer) = reflector::store_shared::<TestResource>(SHARED_BUFFER);
    let mut controllers = Vec::with_capacity(pairs.len());
    for Pair { from, out } in pairs {
        let Some(events) = writer.subscribe() else { anyhow::bail!("the store is not shared") };
        let mine = events.filter(move |object| future::ready(object.namespace().as_deref() == Some(&*from)));
        let context = Arc::new(Context { client: client.clone(), out, targets: store.clone() });
        let run = Controller::for_shared_stream(mine, store.clone())
            .run(reconcile, error_policy, context)
            .for_each(|_| future::ready(()));
        controllers.push(tokio::spawn(run));
    }
    let follow = watcher(Api::<TestResource>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect_shared(writer)
        .for_each(|_| future::ready(()));
    tokio::select! {
        () = follow => Ok(()),
        ended = future::join_all(controllers).map(|ended| ended.into_iter().collect::<Result<(), _>>()) => Ok(ended?),
    }
}
