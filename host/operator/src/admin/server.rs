//! The admin endpoint: `/livez`, `/readyz`, `/metrics`, `/guests/<name>/why`.
//!
//! Whoever can reach it may be slow or hostile. Each connection has a time to live and a bound on headers, their number has
//! a cap, and when it is reached the oldest one goes, so that probes get through.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::health::{Health, Report};
use crate::why::Why;

/// Connections at once: a scraper, a probe and some people need ten.
const MAX_CONNECTIONS: usize = 64;
/// From the beginning of a request to the end of its headers, and for the next request on a connection.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A connection with all its requests and answers; a scraper connects again.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Headers of a request, in bytes and in number.
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Wait after a failed accept, which most likely means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// From the name of a guest to why it is where it is.
pub(crate) type AskWhy = dyn Fn(&str) -> Option<Why> + Send + Sync;

/// What the endpoint shows.
#[derive(Clone)]
pub(crate) struct Admin {
    /// All metrics.
    pub(crate) registry: Arc<Registry>,
    /// The checks.
    pub(crate) health: Health,
    /// Answers why a guest is in memory or asleep; None for a name that no guest has.
    pub(crate) why: Arc<AskWhy>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/guests/{name}/why", get(why))
        .with_state(admin);
    let mut open: VecDeque<Connection> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection to the admin endpoint");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.0.is_finished());
        if open.len() >= MAX_CONNECTIONS {
            open.pop_front();
        }
        open.push_back(Connection(tokio::spawn(connection(stream, router.clone())).abort_handle()));
    }
}

/// Ends with whoever holds it.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "a connection to the admin endpoint broke off"),
    }
}

async fn livez(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    report(&admin.health.live().await, query.as_deref())
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    report(&admin.health.ready().await, query.as_deref())
}

fn report(report: &Report, query: Option<&str>) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    let status = if report.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, report.text(verbose)).into_response()
}

async fn why(State(admin): State<Admin>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(why) = (admin.why)(&name) else {
        return (StatusCode::NOT_FOUND, format!("there is no guest `{}`\n", name.escape_debug())).into_response();
    };
    if query.is_some_and(|query| query.split('&').any(|pair| pair == "output=json")) {
        return axum::Json(why).into_response();
    }
    why.to_string().into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut shown = String::new();
    match text::encode(&mut shown, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shown)
            .into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Less than any time after which connections end by themselves.
    const SOON: Duration = Duration::from_secs(5);

    async fn start(health: Health) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let mut registry = Registry::default();
        super::super::metrics::Metrics::register(&mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (
            address,
            tokio::spawn(serve(listener, Admin { registry: Arc::new(registry), health, why: Arc::new(|_| None) })),
        )
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    fn failing() -> Health {
        Health::builder()
            .live("loop", || async { Ok(String::new()) })
            .ready("informers", || async { Err("not yet".into()) })
            .build()
    }

    #[tokio::test]
    async fn health_is_shown_with_its_status() {
        let (address, _server) = start(failing()).await;
        let live = get(address, "/livez").await;
        assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("\r\n\r\nok"), "{live}");
        assert!(get(address, "/livez?verbose").await.contains("[+]loop ok"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("[-]informers failed: not yet"), "{ready}");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let (address, _server) = start(Health::default()).await;
        let text = get(address, "/metrics").await;
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{text}");
        assert!(
            text.contains("\nprocess_resident_memory_bytes ") && text.contains("\nwasm_operator_build_info{"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let (address, _server) = start(Health::default()).await;
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        assert!(get(address, "/metrics/../livez").await.starts_with("HTTP/1.1 404 "));
        assert!(
            ask(address, "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await
                .contains(" 405 ")
        );
        assert!(ask(address, "garbage\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn endless_headers_are_refused() {
        let (address, _server) = start(Health::default()).await;
        let answer = ask(address, &format!("GET /livez HTTP/1.1\r\nX: {}", "a".repeat(2 * MAX_HEADER_BYTES))).await;
        assert!(answer.contains(" 431 "), "{answer}");
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_probes_out() {
        let (address, _server) = start(failing()).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/livez").await.ends_with("ok"));
        // The oldest had to go.
        let mut first = silent.swap_remove(0);
        let closed = timeout(SOON, first.read(&mut [0])).await.expect("the oldest connection is still open");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn half_a_request_is_not_waited_for_for_ever() {
        let (address, _server) = start(failing()).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        // Its beginning has been read once another request has been answered on this one thread.
        assert!(get(address, "/livez").await.ends_with("ok"));
        tokio::time::pause();
        tokio::time::advance(HEADER_TIME + Duration::from_secs(1)).await;
        tokio::time::resume();
        let mut rest = Vec::new();
        timeout(SOON, slow.read_to_end(&mut rest)).await.expect("the connection is still open").unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    }
}
