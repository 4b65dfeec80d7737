//! The host's connection to the API server.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// Time to connect, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections that are kept, and for how long. Each holds some 50 KiB of buffers, and a start with many guests opens
/// many at once.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// As in Go: a handshake takes as long as two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

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
    config.auth_info.impersonate = None;
    config.auth_info.impersonate_groups = None;
    config.auth_info.impersonate_uid = None;
    config.auth_info.impersonate_user_extra = None;
    config.headers.clear();
    // kube's own stack leaves Nagle's algorithm on, which holds back the second write of a connection for 40 ms.
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
