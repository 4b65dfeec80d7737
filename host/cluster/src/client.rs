//! The host's connection to the API server.

use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// Time to connect, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The API server cannot be reached as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// For the administrator: there is neither a usable kubeconfig nor a ServiceAccount.
    #[error("no access to a cluster: {0}; set `KUBECONFIG`, or run in a Pod with a ServiceAccount")]
    Configuration(String),
    /// For the administrator: the configuration names something that does not work, such as a certificate.
    #[error("cannot make a client from the kubeconfig: {0}")]
    Client(#[from] kube::Error),
}

/// The client of the host and of its guests, from `KUBECONFIG`, `~/.kube/config` or the Pod's ServiceAccount.
///
/// Identities are set by the gateway, request by request, so whatever the kubeconfig says of impersonation is left out.
/// Timeouts are set per request: a watch may be silent for long. Nothing is resent here.
pub async fn connect() -> Result<Client, ConnectError> {
    let config = match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
        Ok(config) => config,
        Err(from_file) => Config::incluster().map_err(|in_cluster| {
            ConnectError::Configuration(format!("as a kubeconfig: {from_file}; in a Pod: {in_cluster}"))
        })?,
    };
    from_config(config)
}

/// [`connect`] with a configuration from elsewhere.
pub fn from_config(mut config: Config) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = None;
    config.write_timeout = None;
    config.auth_info.impersonate = None;
    config.auth_info.impersonate_groups = None;
    config.auth_info.impersonate_uid = None;
    config.auth_info.impersonate_user_extra = None;
    config.headers.clear();
    config.proxy_url = None;
    config.default_retry = false;
    config.disable_compression = true;
    Ok(Client::try_from(config)?)
}
