//! The ring benchmark's controller. N of them stand in a ring; each watches one namespace and passes a new nonce on to
//! the next one, until it has been round once. `README.md` holds the rules and why they are correct.

mod ballast;
mod resource;

use std::sync::Arc;

use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use wasm_operator_sdk::{Action, ApiExt, Config, Controller, IntoGuest, Rule, client};

pub use ballast::Ballast;
pub use resource::{ORIGIN, Origin, TestResource, TestResourceSpec};

struct Context {
    client: Client,
    out_namespace: String,
    /// Held as long as the instance lives.
    _ballast: Ballast,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    /// The administrator's to mend: the namespace is missing or the guest may not write there. Tried again with backoff.
    #[error("cannot pass nonce {nonce} on to namespace `{namespace}`: {}", explain(.source))]
    Write { nonce: i64, namespace: String, source: kube::Error },
}

/// The API server's own words, without the debug output that kube's error adds to them.
fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn reconcile(object: Arc<TestResource>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(next) = object.next(&context.out_namespace) else { return Ok(Action::await_change()) };
    let nonce = next.spec.nonce;
    let api: Api<TestResource> = Api::namespaced(context.client.clone(), &context.out_namespace);
    match pass_on(&api, next).await {
        Ok(()) => Ok(Action::await_change()),
        Err(source) => Err(Error::Write { nonce, namespace: context.out_namespace.clone(), source }),
    }
}

/// Writes over what the host's cache holds. If that was out of date the API server refuses, and what it holds itself is
/// written over; another writer in that moment makes it an error, which is tried again with backoff.
async fn pass_on(api: &Api<TestResource>, next: TestResource) -> kube::Result<()> {
    let name = next.name_any();
    let known = api.get_cached(&name).await?;
    match write(api, known, &next).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => return result,
    }
    let current = api.get_opt(&name).await?;
    write(api, current, &next).await
}

async fn write(api: &Api<TestResource>, there: Option<TestResource>, next: &TestResource) -> kube::Result<()> {
    match there {
        None => drop(api.create(&PostParams::default(), next).await?),
        Some(there) => match next.over(there) {
            Some(object) => drop(api.replace(&next.name_any(), &PostParams::default(), &object).await?),
            None => tracing::debug!(nonce = next.spec.nonce, "there already, or overtaken by a newer nonce"),
        },
    }
    Ok(())
}

fn error_policy(_: Arc<TestResource>, _: &Error, _: Arc<Context>) -> Action {
    Action::retry()
}

fn setup() -> Result<impl IntoGuest, String> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("the ring guest needs the environment variable `{name}`"));
    let (in_namespace, out_namespace) = (variable("IN_NAMESPACE")?, variable("OUT_NAMESPACE")?);
    let ballast = Ballast::from_text(std::env::var("HEAP_MEM_SIZE").ok().as_deref())?;
    let watch = Config::default().in_namespaces([in_namespace]).when_generation_changed();
    Ok(Controller::<TestResource>::new(watch)
        .named("ring")
        .reads::<TestResource>(Config::default().in_namespaces([out_namespace.clone()]).full())
        .asks_for(Rule::on::<TestResource>().create().update().in_namespaces([out_namespace.clone()]))
        .run(reconcile, error_policy, Arc::new(Context { client: client(), out_namespace, _ballast: ballast })))
}

wasm_operator_sdk::main!(setup);
