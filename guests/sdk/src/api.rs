//! Shorthands on `kube::Api`.

use std::fmt::Debug;

use kube::api::{Api, GetParams, ListParams, ObjectList, Patch, PatchParams};
use kube::core::Status;
use kube::{Error, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What controllers do all the time: server-side apply under their own name, and reads that the host may answer.
///
/// A cached read is an ordinary read with `resourceVersion=0`. The host answers it without a request to the API server
/// when a watch of this guest covers it and the guest's own writes have been seen; otherwise the API server answers.
pub trait ApiExt<K: Clone> {
    /// Server-side apply with force. The field manager is the guest's name. Creates the object if need be.
    ///
    /// # Errors
    /// Those of [`Api::patch`]; an object without a name is refused.
    fn apply<B: Serialize + Resource + Debug>(&self, object: &B) -> impl Future<Output = Result<K, Error>>;

    /// [`apply`](Self::apply) on the status subresource: the object needs its name and its status, nothing else.
    ///
    /// # Errors
    /// Those of [`Api::patch_status`]; an object without a name is refused.
    fn apply_status<B: Serialize + Resource + Debug>(&self, object: &B) -> impl Future<Output = Result<K, Error>>;

    /// Reads an object, from the host's cache if possible. `None`: it does not exist.
    ///
    /// # Errors
    /// Those of [`Api::get`] but for "not found".
    fn get_cached(&self, name: &str) -> impl Future<Output = Result<Option<K>, Error>>;

    /// Reads all objects that match labels and fields of `params`, from the host's cache if possible. A page size in
    /// `params` is ignored: a paginated list cannot come from the cache.
    ///
    /// # Errors
    /// Those of [`Api::list`].
    fn list_cached(&self, params: &ListParams) -> impl Future<Output = Result<ObjectList<K>, Error>>;
}

impl<K: Resource + Clone + DeserializeOwned + Debug> ApiExt<K> for Api<K> {
    async fn apply<B: Serialize + Resource + Debug>(&self, object: &B) -> Result<K, Error> {
        self.patch(&name(object)?, &as_guest(), &Patch::Apply(object)).await
    }

    async fn apply_status<B: Serialize + Resource + Debug>(&self, object: &B) -> Result<K, Error> {
        self.patch_status(&name(object)?, &as_guest(), &Patch::Apply(object)).await
    }

    async fn get_cached(&self, name: &str) -> Result<Option<K>, Error> {
        match self.get_with(name, &GetParams::any()).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list_cached(&self, params: &ListParams) -> Result<ObjectList<K>, Error> {
        let params = ListParams { limit: None, continue_token: None, ..params.clone().match_any() };
        self.list(&params).await
    }
}

/// The host completes a missing field manager with the guest's name.
fn as_guest() -> PatchParams {
    PatchParams { force: true, ..PatchParams::default() }
}

fn name(object: &impl Resource) -> Result<String, Error> {
    match object.name_any() {
        name if name.is_empty() => {
            let status = Status::failure("the object to apply has no `metadata.name`", "BadRequest").with_code(400);
            Err(Error::Api(Box::new(status)))
        }
        name => Ok(name),
    }
}
