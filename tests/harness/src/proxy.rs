//! A network between host and API server that can be disturbed. TLS goes through untouched.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// What happens to the bytes of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// They pass, this much later.
    Pass(Duration),
    /// They wait, without a word to either side: what a firewall does that has forgotten a connection.
    Freeze,
    /// The connection is closed.
    Cut,
}

#[derive(Debug)]
struct Connection {
    flow: watch::Sender<Flow>,
    downstream: std::sync::Weak<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    connections: Mutex<Vec<Connection>>,
    accepted: watch::Sender<usize>,
    /// For connections to come; `Cut` refuses them.
    next: Mutex<Flow>,
}

/// A TCP proxy on loopback. It ends with the runtime of its test.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Shared {
            upstream,
            connections: Mutex::default(),
            accepted: watch::channel(0).0,
            next: Mutex::new(Flow::Pass(Duration::ZERO)),
        };
        let shared = Arc::new(shared);
        tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.connections.lock().iter().filter(|one| one.downstream.strong_count() > 0).count()
    }

    /// Connections that were ever accepted.
    pub fn accepted(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// Closes every open connection; new ones are accepted.
    pub fn cut(&self) {
        self.set_open(Flow::Cut);
    }

    /// Closes every open connection and those to come, until [`pass`](Self::pass).
    pub fn refuse(&self) {
        *self.shared.next.lock() = Flow::Cut;
        self.set_open(Flow::Cut);
    }

    /// Falls silent on every open connection, without closing it; new ones work.
    pub fn freeze_open(&self) {
        self.set_open(Flow::Freeze);
    }

    /// Falls silent on every connection, those to come as well, until [`pass`](Self::pass).
    pub fn freeze(&self) {
        *self.shared.next.lock() = Flow::Freeze;
        self.set_open(Flow::Freeze);
    }

    /// Delays every byte, in both directions.
    pub fn delay(&self, delay: Duration) {
        *self.shared.next.lock() = Flow::Pass(delay);
        self.set_open(Flow::Pass(delay));
    }

    /// Lets everything through again, what was frozen included.
    pub fn pass(&self) {
        self.delay(Duration::ZERO);
    }

    fn set_open(&self, flow: Flow) {
        let mut connections = self.shared.connections.lock();
        connections.retain(|one| one.downstream.strong_count() > 0);
        for connection in connections.iter() {
            connection.flow.send_replace(flow);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((downstream, _)) = listener.accept().await {
        shared.accepted.send_modify(|count| *count += 1);
        let next = *shared.next.lock();
        if next == Flow::Cut {
            continue;
        }
        let (flow, follow) = watch::channel(next);
        let alive = Arc::new(());
        shared.connections.lock().push(Connection { flow, downstream: Arc::downgrade(&alive) });
        tokio::spawn(serve(downstream, shared.upstream, follow, alive));
    }
}

async fn serve(downstream: TcpStream, upstream: SocketAddr, flow: watch::Receiver<Flow>, _alive: Arc<()>) {
    let Ok(upstream) = TcpStream::connect(upstream).await else { return };
    let _ = (downstream.set_nodelay(true), upstream.set_nodelay(true));
    let (down_read, down_write) = downstream.into_split();
    let (up_read, up_write) = upstream.into_split();
    // Either direction's end ends both: HTTP has no use for half a connection.
    tokio::select! {
        () = copy(down_read, up_write, flow.clone()) => {}
        () = copy(up_read, down_write, flow) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let current = *flow.borrow_and_update();
        let delay = match current {
            Flow::Cut => return,
            Flow::Freeze => {
                // The proxy itself may be gone; then nobody thaws the connection any more.
                if flow.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Flow::Pass(delay) => delay,
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = flow.changed() => if changed.is_ok() { continue } else { from.read(&mut buffer).await },
        };
        let Ok(length @ 1..) = read else { return };
        tokio::time::sleep(delay).await;
        // Frozen in the meantime: what was read waits too.
        while *flow.borrow_and_update() == Flow::Freeze {
            if flow.changed().await.is_err() {
                return;
            }
        }
        let Some(bytes) = buffer.get(..length) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn cut_closes_open_connections_only() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream).await.unwrap(), b'x');
        assert_eq!(proxy.open(), 1);
        proxy.cut();
        assert!(say(&mut stream).await.is_err());
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut other).await.unwrap(), b'x');
        assert_eq!(proxy.accepted(), 2);
    }

    #[tokio::test]
    async fn a_frozen_connection_is_silent_and_open_until_it_passes_again() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.freeze_open();
        let mut silent = std::pin::pin!(say(&mut stream));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut silent).await.is_err());
        proxy.pass();
        assert_eq!(silent.await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn refused_connections_are_closed_at_once() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        proxy.refuse();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(say(&mut stream).await.is_err());
        proxy.pass();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream).await.unwrap(), b'x');
    }
}
