//! The ring benchmark's controller. N of them stand in a ring; each watches one namespace and passes a new nonce on to
//! the next one, until it has been round once. `README.md` holds the rules and why they are correct.

mod ballast;
mod resource;

use std::sync::Arc;

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
    match api.apply(&next).await {
        Ok(written) => tracing::debug!(nonce, to = written.namespace(), "passed on"),
        Err(kube::Error::Api(status)) if resource::is_newer_there(&status) => {
            tracing::debug!(nonce, to = context.out_namespace, "overtaken by a newer nonce");
        }
        Err(source) => return Err(Error::Write { nonce, namespace: context.out_namespace.clone(), source }),
    }
    Ok(Action::await_change())
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
        .asks_for(Rule::on::<TestResource>().apply().in_namespaces([out_namespace.clone()]))
        .run(reconcile, error_policy, Arc::new(Context { client: client(), out_namespace, _ballast: ballast })))
}

wasm_operator_sdk::main!(setup);
