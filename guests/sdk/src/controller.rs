//! The builder of a controller, and the call of the functions that it was given.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::action::{Action, Next};
use crate::bindings::wasm_operator::controller::types::{self, Failure, Outcome};
use crate::config::{Config, Mapping};
use crate::permission::{Rule, to_watch};

/// A controller of one kind, in kube-rs's words. Ends with [`run`](Self::run).
pub struct Controller<K: Resource> {
    name: String,
    kind: K::DynamicType,
    primary: Config,
    watches: Vec<types::Watch>,
    rules: Vec<types::PermissionRule>,
}

/// A primary object that was deleted since the last reconcile of its name.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// None for a cluster-scoped object.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The last `metadata` that the host saw.
    pub metadata: ObjectMeta,
}

type Answer = Pin<Box<dyn Future<Output = Result<Outcome, Failure>>>>;

/// A controller with its functions: what [`main!`](crate::main) wants.
pub struct Reconciler {
    pub(crate) description: types::Controller,
    pub(crate) rules: Vec<types::PermissionRule>,
    pub(crate) call: Box<dyn Fn(types::Request) -> Answer>,
}

impl<K: Resource<DynamicType = ()>> Controller<K> {
    /// A controller of `K`.
    ///
    /// For `PartialObjectMeta<K>` only metadata is watched and handed over, which costs the host an order of magnitude
    /// less memory.
    #[must_use]
    pub fn new(primary: Config) -> Self {
        Self::new_with(primary, ())
    }
}

impl<K: Resource> Controller<K> {
    /// A controller of a kind that is known at run time only, such as `DynamicObject` with its `ApiResource`.
    #[must_use]
    pub fn new_with(primary: Config, kind: K::DynamicType) -> Self {
        Self { name: K::kind(&kind).to_lowercase(), kind, primary, watches: Vec::new(), rules: Vec::new() }
    }

    /// The controller's name in the host's logs and metrics: a DNS label. Default: the kind in lower case.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Reconcile the owner when an object that it controls changes.
    #[must_use]
    pub fn owns<O: Resource<DynamicType = ()>>(self, config: Config) -> Self {
        self.owns_with::<O>(config, &())
    }

    /// [`owns`](Self::owns) for a kind that is known at run time only.
    #[must_use]
    pub fn owns_with<O: Resource>(self, config: Config, kind: &O::DynamicType) -> Self {
        let owner =
            types::GroupKind { group: K::group(&self.kind).into_owned(), kind: K::kind(&self.kind).into_owned() };
        self.watches_with::<O>(config, kind, Mapping::Owner(owner))
    }

    /// Reconcile the primary that a changed object of another kind leads to.
    #[must_use]
    pub fn watches<O: Resource<DynamicType = ()>>(self, config: Config, mapping: Mapping) -> Self {
        self.watches_with::<O>(config, &(), mapping)
    }

    /// [`watches`](Self::watches) for a kind that is known at run time only.
    #[must_use]
    pub fn watches_with<O: Resource>(mut self, config: Config, kind: &O::DynamicType, mapping: Mapping) -> Self {
        let full = config.full;
        self.watches.push(config.watch::<O>(kind, mapping, full));
        self
    }

    /// Keep objects of another kind in the host's cache for [cached reads](crate::ApiExt). Their changes wake nobody.
    /// Say [`Config::full`] unless their metadata is enough.
    #[must_use]
    pub fn reads<O: Resource<DynamicType = ()>>(self, config: Config) -> Self {
        self.watches::<O>(config, Mapping::Nothing)
    }

    /// A permission that the guest needs besides reading what it watches.
    #[must_use]
    pub fn asks_for(mut self, rule: Rule) -> Self {
        self.rules.push(rule.into_wit());
        self
    }

    /// Give the controller its functions.
    ///
    /// `reconcile` is called for objects that exist. Its error goes to `error_policy`, whose [`Action`] says what
    /// becomes of it. An object that does not fit `K` is a terminal failure: the host reports it and waits for a change.
    pub fn run<C, R, F, E, P>(self, reconcile: R, error_policy: P, context: Arc<C>) -> Reconciler
    where
        K: DeserializeOwned + 'static,
        C: 'static,
        R: Fn(Arc<K>, Arc<C>) -> F + 'static,
        F: Future<Output = Result<Action, E>> + 'static,
        E: Display + 'static,
        P: Fn(Arc<K>, &E, Arc<C>) -> Action + 'static,
    {
        self.run_with_deleted(reconcile, |_, _| std::future::ready(Ok(())), error_policy, context)
    }

    /// [`run`](Self::run) with a function for deleted objects, which is called before `reconcile` for each object of
    /// that name that was deleted since, oldest first. Its errors are tried again with the host's backoff.
    ///
    /// Deletes while the host is down are not reported: what must happen on deletion needs a
    /// [finalizer](crate::finalizer).
    pub fn run_with_deleted<C, R, F, E, D, G, P>(
        self,
        reconcile: R,
        deleted: D,
        error_policy: P,
        context: Arc<C>,
    ) -> Reconciler
    where
        K: DeserializeOwned + 'static,
        C: 'static,
        R: Fn(Arc<K>, Arc<C>) -> F + 'static,
        F: Future<Output = Result<Action, E>> + 'static,
        E: Display + 'static,
        D: Fn(Deleted, Arc<C>) -> G + 'static,
        G: Future<Output = Result<(), E>> + 'static,
        P: Fn(Arc<K>, &E, Arc<C>) -> Action + 'static,
    {
        let primary = self.primary.watch::<K>(&self.kind, Mapping::Object, !K::metadata_api());
        let mut rules = vec![to_watch(&primary)];
        for rule in self.watches.iter().map(to_watch).chain(self.rules) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        let kind = primary.of.kind.clone();
        let functions = Arc::new((reconcile, deleted, error_policy));
        let call = move |request: types::Request| -> Answer {
            let (functions, context, kind) = (Arc::clone(&functions), Arc::clone(&context), kind.clone());
            Box::pin(async move {
                let (reconcile, deleted, error_policy) = &*functions;
                for tombstone in request.deleted {
                    let object = Deleted::new(&request.object, tombstone);
                    deleted(object, Arc::clone(&context))
                        .await
                        .map_err(|error| retryable(format!("{error:#}"), None))?;
                }
                let Some(content) = request.content else { return Ok(Outcome::Done) };
                let object: Arc<K> = Arc::new(
                    serde_json::from_slice(&content)
                        .map_err(|error| Failure::Terminal(misfit(&kind, &request.object, &error)))?,
                );
                match reconcile(Arc::clone(&object), Arc::clone(&context)).await {
                    Ok(action) => success(action),
                    Err(error) => Err(failure(error_policy(object, &error, context), &error)),
                }
            })
        };
        Reconciler {
            description: types::Controller { name: self.name, primary, watches: self.watches },
            rules,
            call: Box::new(call),
        }
    }
}

impl Deleted {
    fn new(object: &types::ObjectReference, tombstone: types::Tombstone) -> Self {
        Self {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: tombstone.uid,
            // Metadata comes from the API server by way of the host: if it cannot be read, uid and name still can.
            metadata: serde_json::from_slice(&tombstone.metadata).unwrap_or_default(),
        }
    }
}

fn success(action: Action) -> Result<Outcome, Failure> {
    match action.0 {
        Next::Change => Ok(Outcome::Done),
        Next::After(duration) => Ok(Outcome::RequeueAfter(milliseconds(duration))),
        Next::Backoff => Err(retryable("the controller asked for a retry".to_owned(), None)),
    }
}

fn failure(action: Action, error: &impl Display) -> Failure {
    let message = format!("{error:#}");
    match action.0 {
        Next::Change => Failure::Terminal(message),
        Next::Backoff => retryable(message, None),
        Next::After(duration) => retryable(message, Some(duration)),
    }
}

fn retryable(message: String, after: Option<Duration>) -> Failure {
    Failure::Retryable(types::Retry { message, after: after.map(milliseconds) })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn misfit(kind: &str, object: &types::ObjectReference, error: &serde_json::Error) -> String {
    let namespace = object.namespace.as_deref().map_or_else(String::new, |namespace| format!("{namespace}/"));
    format!("{kind} `{namespace}{}` does not fit the type that the controller was built with: {error}", object.name)
}

#[cfg(test)]
mod tests;
