//! The Secret of a Job.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{Run, owned};
use crate::ids;
use crate::params::Place;

/// The entry with the API key.
pub(super) const API_KEY: &str = "ow-api-key";
/// The entry with parameters.
pub(super) const PARAMS: &str = "params";

/// The key for OpenWhisk, and parameters that came from a Secret. None: the Job needs neither.
#[must_use]
pub fn secret(run: &Run<'_>) -> Option<Secret> {
    let key = run.openwhisk.as_ref().map(|openwhisk| (API_KEY, &openwhisk.api_key));
    let params = (run.params.place == Place::Secret).then_some((PARAMS, &run.params.text));
    let entries = [key, params].into_iter().flatten();
    let data: std::collections::BTreeMap<_, _> =
        entries.map(|(name, value)| (name.to_owned(), ByteString(value.clone().into_bytes()))).collect();
    if data.is_empty() {
        return None;
    }
    let metadata = run.metadata(ids::job_name(&run.job_id));
    Some(owned(Secret { metadata, data: Some(data), ..Secret::default() }, run.action))
}
