//! The two calls by which a kube-rs controller becomes a guest of the world `operator`:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::{Api, runtime::Controller};
//!
//! let client = wasm_operator_client::client().await?; // instead of Client::try_default()
//! let config = wasm_operator_client::watcher_config(); // instead of watcher::Config::default()
//! let controller = Controller::new(Api::<ConfigMap>::default_namespaced(client), config);
//! # Ok(())
//! # }
//! ```
//!
//! Natively they are what they stand for, so that one source is compiled twice.

#[cfg(target_os = "wasi")]
mod endpoint;

use kube::Client;
use kube::runtime::watcher;

/// The host part of the address at which the host serves the guest's Kubernetes API: plain HTTP/1.1.
pub const SERVICE_HOST: &str = "WASM_OPERATOR_SERVICE_HOST";
/// The port of that address.
pub const SERVICE_PORT: &str = "WASM_OPERATOR_SERVICE_PORT";
/// The bearer token that every request there must have.
pub const SERVICE_TOKEN: &str = "WASM_OPERATOR_SERVICE_TOKEN";

/// There is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The component does not run under wasm-operator, or not in the world `operator`.
    #[error(
        "the environment variable `{0}` is missing or malformed; wasm-operator sets it for guests that export `wasi:cli/run`"
    )]
    Environment(&'static str),
    /// No cluster is configured. Natively only.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// The client: in a guest that of the host's gateway, which checks each request against the guest's permissions and sends it
/// with the guest's own identity; natively [`Client::try_default`].
///
/// # Errors
/// When the environment names no API server.
#[cfg_attr(target_os = "wasi", allow(clippy::unused_async, reason = "natively it waits"))]
pub async fn client() -> Result<Client, Error> {
    #[cfg(target_os = "wasi")]
    return endpoint::client();
    #[cfg(not(target_os = "wasi"))]
    Ok(Client::try_default().await?)
}

/// The default configuration of a watcher; in a guest without the client-side timeout. The host ends no watch that is merely
/// silent, and the timeout would wake a sleeping guest every 295 s to begin the same watch again.
#[must_use]
pub fn watcher_config() -> watcher::Config {
    let config = watcher::Config::default();
    if cfg!(target_os = "wasi") { config.timeout(0) } else { config }
}
