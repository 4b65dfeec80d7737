//! `serve`: the service on a socket.

mod answer;
pub mod limits;
mod request;
mod routes;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use limits::{ACCEPT_PAUSE, CONNECTION_TIME, DRAIN_TIME, HEADER_TIME, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_HEADERS};

/// The command `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the service listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
}

/// Runs the command, until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot listen.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let computations = std::thread::available_parallelism().map_or(1, usize::from);
    // One thread for all connections: everything that takes time runs elsewhere.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(computations).build()?;
    let served = runtime.block_on(async {
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on `{}`", args.listen))?;
        info!(address = %listener.local_addr()?, "serving forecasts");
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
            info!("stopping");
        };
        serve(listener, computations, stop).await;
        Ok(())
    });
    // A computation that outlived its client has nobody to answer.
    runtime.shutdown_background();
    served
}

/// Serves until `stop`, then lets requests under way end. At most `computations` forecasts are made at once.
pub async fn serve(listener: TcpListener, computations: usize, stop: impl Future<Output = ()>) {
    let router = routes::router(computations);
    let graceful = GracefulShutdown::new();
    let mut open: VecDeque<Connection> = VecDeque::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.0.is_finished());
        if open.len() >= MAX_CONNECTIONS {
            open.pop_front();
        }
        open.push_back(Connection(tokio::spawn(connection(stream, router.clone(), graceful.watcher())).abort_handle()));
    }
    drop(listener);
    if timeout(DRAIN_TIME, graceful.shutdown()).await.is_err() {
        warn!("requests were cut off: they took longer than {} s to end", DRAIN_TIME.as_secs());
    }
}

/// Ends with whoever holds it.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connection(stream: TcpStream, router: axum::Router, stop: Watcher) {
    // Answers are small and wait for nothing.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME, stop.watch(connection)).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "a connection broke off"),
    }
}

#[cfg(test)]
mod tests;
