//! The front door: where guests that serve HTTP are called.
//!
//! The way of a request: a listener (`listener.rs`, bounds and timeouts of connections) hands it to `handle.rs`, which
//! authenticates and authorises the caller, reads the body, and has it wait for its turn (`pending.rs`); the dispatcher
//! wakes the guest; `serve.rs` calls it on its worker thread; the answer streams back. What a request may be and which
//! headers pass is decided in `host/core/src/front_door.rs`, who may call in `host/cluster/src/callers.rs`.

mod answer;
mod body;
mod connections;
mod handle;
mod listener;
mod listeners;
mod passwords;
mod pending;
mod serve;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;
use wasm_operator_cluster::callers::Callers;
use wasm_operator_cluster::gateway::ClosedAddresses;

use crate::host::Host;
use listener::{Access, ListenError, Listening};
pub(crate) use listeners::Listeners;
pub(crate) use pending::{End, Pending};
pub(crate) use serve::serve;
use tls::TlsFiles;

/// Bodies of requests that the host holds at once, in KiB: 32 MiB, so that a thousand callers cannot fill the node.
const BODY_KIB: usize = 32 << 10;

/// How the front door is opened, as `run` was called.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where it listens; None for no front door. Guests with a listener of their own are served in any case.
    pub(crate) address: Option<SocketAddr>,
    /// Certificate chain and private key, PEM files; None for plain HTTP, on loopback only.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// The audience that tokens must be meant for.
    pub(crate) audience: String,
}

/// What all listeners share.
pub(crate) struct FrontDoor {
    host: Arc<Host>,
    callers: Callers,
    bodies: Arc<Semaphore>,
    /// Where guests must not connect to.
    closed: ClosedAddresses,
    /// Turns true when the host stops.
    stop: watch::Sender<bool>,
    /// Held by each connection. When the last one is gone the receiver says so.
    open: Mutex<Option<mpsc::Sender<()>>>,
}

impl FrontDoor {
    /// Nothing listens yet. The receiver ends when [`FrontDoor::stop`] was called and the last connection is gone.
    pub(crate) fn new(host: Arc<Host>, callers: Callers, closed: ClosedAddresses) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (open, all_closed) = mpsc::channel(1);
        let door = Self {
            host,
            callers,
            bodies: Arc::new(Semaphore::new(BODY_KIB)),
            closed,
            stop: watch::Sender::new(false),
            open: Mutex::new(Some(open)),
        };
        (Arc::new(door), all_closed)
    }

    /// Listens for callers with tokens, if the options say where. What this returns ends with the host.
    pub(crate) async fn listen(self: &Arc<Self>, options: &Options) -> Result<Option<JoinHandle<()>>, ListenError> {
        let Some(address) = options.address else { return Ok(None) };
        let tls = options.tls.clone().map(|(certificate, key)| TlsFiles { certificate, key, client_authorities: None });
        let is_plain = tls.is_none();
        let listening = Listening::open(self, address, tls, Access::Tokens).await?;
        let address = listening.address();
        info!(%address, tls = !is_plain, audience = options.audience, "the front door listens");
        Ok(Some(tokio::spawn(listening.serve(self.stop.subscribe()))))
    }

    /// Takes no connection and no request any more; what is under way ends.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
        self.open.lock().take();
    }
}
