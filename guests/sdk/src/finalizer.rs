//! Work that must be done before an object may go.
//!
//! Same words as `kube::runtime::finalizer`, which does not build for components.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Action;

/// What is to be done with an object that has a finalizer.
#[derive(Debug, Clone)]
pub enum Event<K> {
    /// The object exists and has the finalizer: reconcile it.
    Apply(Arc<K>),
    /// The object is being deleted: undo what was done for it. The finalizer goes when this succeeds.
    Cleanup(Arc<K>),
}

/// Why [`finalizer`] failed.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: StdError + 'static> {
    /// The reconcile failed.
    #[error("failed to apply object: {0}")]
    ApplyFailed(#[source] E),
    /// The clean-up failed; the finalizer stays.
    #[error("failed to clean up object: {0}")]
    CleanupFailed(#[source] E),
    /// The finalizer could not be added. A conflict means that the object has changed: try again.
    #[error("failed to add finalizer: {0}")]
    AddFinalizer(#[source] kube::Error),
    /// The finalizer could not be removed. A conflict means that the object has changed: try again.
    #[error("failed to remove finalizer: {0}")]
    RemoveFinalizer(#[source] kube::Error),
    /// The object has no name: it was not read from the cluster.
    #[error("object has no name")]
    UnnamedObject,
}

/// Reconciles an object under the protection of a finalizer, which is added first and removed after the clean-up.
///
/// `finalizer_name` looks like `example.org/cleanup`. Needs the permission to patch the kind.
///
/// # Errors
/// Those of `reconcile` and of the two writes.
pub async fn finalizer<K, F, R, E>(
    api: &Api<K>,
    finalizer_name: &str,
    object: Arc<K>,
    reconcile: R,
) -> Result<Action, Error<E>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    R: FnOnce(Event<K>) -> F,
    F: Future<Output = Result<Action, E>>,
    E: StdError + 'static,
{
    match step(&*object, finalizer_name) {
        Step::Apply => reconcile(Event::Apply(object)).await.map_err(Error::ApplyFailed),
        Step::Cleanup => {
            reconcile(Event::Cleanup(Arc::clone(&object))).await.map_err(Error::CleanupFailed)?;
            let rest = object.finalizers().iter().filter(|known| *known != finalizer_name).cloned().collect();
            match write(api, &*object, rest).await? {
                // Gone already: somebody else took the finalizer away.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::await_change()),
                Err(error) => Err(Error::RemoveFinalizer(error)),
                Ok(()) => Ok(Action::await_change()),
            }
        }
        Step::Add => {
            let finalizers = object.finalizers().iter().cloned().chain([finalizer_name.to_owned()]).collect();
            write(api, &*object, finalizers).await?.map_err(Error::AddFinalizer)?;
            // The write is a change of its own: the object comes back with its finalizer.
            Ok(Action::await_change())
        }
        Step::Nothing => Ok(Action::await_change()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Add,
    Apply,
    Cleanup,
    Nothing,
}

fn step(object: &impl Resource, finalizer_name: &str) -> Step {
    let present = object.finalizers().iter().any(|known| known == finalizer_name);
    match (present, object.meta().deletion_timestamp.is_some()) {
        (true, false) => Step::Apply,
        (true, true) => Step::Cleanup,
        (false, false) => Step::Add,
        (false, true) => Step::Nothing,
    }
}

/// A merge patch replaces the whole list, so the version must be the one that the list was read from.
async fn write<K, E>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<Result<(), kube::Error>, Error<E>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    E: StdError + 'static,
{
    let name = object.meta().name.as_deref().ok_or(Error::UnnamedObject)?;
    let patch = json!({"metadata": {
        "uid": object.meta().uid,
        "resourceVersion": object.meta().resource_version,
        "finalizers": finalizers,
    }});
    Ok(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use kube::core::ObjectMeta;

    use super::*;

    fn object(finalizers: &[&str], deleted: bool) -> ConfigMap {
        let metadata = ObjectMeta {
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            deletion_timestamp: deleted.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn an_object_is_reconciled_only_under_its_finalizer() {
        assert_eq!(step(&object(&[], false), "a/b"), Step::Add);
        assert_eq!(step(&object(&["other/one"], false), "a/b"), Step::Add);
        assert_eq!(step(&object(&["a/b"], false), "a/b"), Step::Apply);
    }

    #[test]
    fn a_deleted_object_is_cleaned_up_once_and_never_gets_the_finalizer_again() {
        assert_eq!(step(&object(&["a/b", "other/one"], true), "a/b"), Step::Cleanup);
        assert_eq!(step(&object(&["other/one"], true), "a/b"), Step::Nothing);
        assert_eq!(step(&object(&[], true), "a/b"), Step::Nothing);
    }
}
