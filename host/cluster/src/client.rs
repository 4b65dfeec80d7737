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

/// A connection that is silent for so long is probed; without an answer it is given up within a minute of its last word.
/// Nothing else tells that the other end of a watch which goes to the server is gone.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

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
/// Timeouts are set per request: a watch may be silent for long, as long as its connection answers. Nothing is resent here.
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
    let connector = config.rustls_https_connector_with_connector(connector())?;
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

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    // kube's own stack leaves Nagle's algorithm on, which holds back the second write of a connection for 40 ms.
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(PROBE_AFTER));
    connector.set_keepalive_interval(Some(PROBE_INTERVAL));
    connector.set_keepalive_retries(Some(PROBES));
    connector
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Seconds until the kernel probes the connection to this port; None if it is not going to.
    fn seconds_to_probe(port: u16) -> Option<u64> {
        let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let remote = format!("0100007F:{port:04X}");
        let connection = connections.lines().find(|line| line.split_whitespace().nth(2) == Some(&*remote))?;
        let (timer, when) = connection.split_whitespace().nth(5)?.split_once(':')?;
        let hundredths = u64::from_str_radix(when, 16).unwrap();
        (timer == "02").then_some(hundredths / 100)
    }

    #[tokio::test]
    async fn a_connection_without_a_word_is_probed() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let client = from_config(Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let watch = http::Request::get("/api/v1/configmaps?watch=1").body(Body::empty()).unwrap();
        let watch = tokio::spawn(async move { client.send(watch).await });
        let (mut connection, _) = server.accept().await.unwrap();
        assert!(connection.read(&mut [0; 1_024]).await.unwrap() > 0);
        // The timer is that of the request until that is acknowledged.
        let mut seconds = None;
        for _ in 0..100 {
            seconds = seconds.or_else(|| seconds_to_probe(address.port()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(seconds.is_some_and(|seconds| seconds <= 30), "{seconds:?}");
        assert!(!watch.is_finished());
    }
}
