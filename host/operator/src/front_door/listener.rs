//! A listening socket, and the connections that come in there.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};
use wasm_operator_cluster::callers::Caller;
use wasm_operator_config::Reload;
use wasm_operator_core::allowed_host::unmapped;
use wasm_operator_core::network::Network;
use wasm_operator_core::rate_limit::{Rate, RateLimit};
use wasm_operator_core::timer::Time;
use wasm_operator_engine::ResponseBody;

use super::FrontDoor;
use super::answer::Denial;
use super::body::Held;
use super::connections::{Busy, Connections, Place, Requests};
use super::handle::credentials;
use super::passwords::{Passwords, PasswordsError};
use super::tls::{Certificate, TlsError, TlsFiles};

/// For a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// From the beginning of a request to the end of its headers, and for the next request on a connection.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// For a caller that does not read its answer.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Headers of a request, in bytes and in number. A token has some KiB.
const MAX_HEADER_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// Wait after a failed accept, which most likely means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Wrong passwords, in all and from one address: who guesses needs years, who has mistyped does not notice.
const GUESSES: Rate = Rate { per_second: 20, burst: 40 };
const GUESSES_OF_ONE: Rate = Rate { per_second: 1, burst: 10 };
/// Addresses whose guesses are counted.
const MAX_GUESSERS: usize = 1_024;

/// Why nothing listens. Mended by the administrator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on `{address}`: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Passwords(#[from] PasswordsError),
}

/// Who comes in through a listener.
pub(super) enum Access {
    /// Whoever has a token, to every guest.
    Tokens,
    /// Whoever can reach it, to one guest.
    Listener(Own),
}

/// What is known of a listener of a guest's own.
pub(super) struct Own {
    pub(super) guest: String,
    pub(super) caller: Caller,
    pub(super) sources: Vec<Network>,
    pub(super) passwords: Option<PasswordFile>,
}

/// Passwords that may change.
pub(super) struct PasswordFile {
    path: std::path::PathBuf,
    current: RwLock<Passwords>,
    guesses: Mutex<RateLimit<IpAddr>>,
    started: tokio::time::Instant,
}

impl PasswordFile {
    pub(super) fn open(path: std::path::PathBuf) -> Result<Self, PasswordsError> {
        let current = RwLock::new(Passwords::read(&path)?);
        let guesses = Mutex::new(RateLimit::new(GUESSES, GUESSES_OF_ONE, MAX_GUESSERS));
        Ok(Self { path, current, guesses, started: tokio::time::Instant::now() })
    }
}

impl Own {
    /// Whether the request has what the listener demands besides its source and its certificate.
    pub(super) fn authenticate(&self, headers: &HeaderMap, from: IpAddr) -> Result<(), Denial> {
        let Some(file) = &self.passwords else { return Ok(()) };
        let given = credentials(headers, "basic").ok_or(Denial::NoPassword)?;
        let given = decode_base64(given).ok_or(Denial::WrongPassword)?;
        if file.current.read().admit(&given) {
            return Ok(());
        }
        let now = Time::ZERO + file.started.elapsed();
        if file.guesses.lock().take(now, from) { Err(Denial::WrongPassword) } else { Err(Denial::TooManyPasswords) }
    }
}

/// A socket that listens, with what is needed to serve it.
pub(crate) struct Listening {
    door: Arc<FrontDoor>,
    socket: TcpListener,
    address: SocketAddr,
    access: Arc<Access>,
    tls: Option<(TlsFiles, RwLock<Certificate>)>,
    connections: Arc<Connections>,
    /// Held while this listens and while a connection is open.
    open: Option<mpsc::Sender<()>>,
}

impl Listening {
    /// Listens; guests cannot connect there from now on.
    pub(super) async fn open(
        door: &Arc<FrontDoor>,
        address: SocketAddr,
        tls: Option<TlsFiles>,
        access: Access,
    ) -> Result<Self, ListenError> {
        let tls = tls.map(|files| files.load().map(|loaded| (files, RwLock::new(loaded)))).transpose()?;
        let failed = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        door.closed.add(address);
        Ok(Self {
            door: Arc::clone(door),
            socket,
            address,
            access: Arc::new(access),
            tls,
            connections: Arc::default(),
            open: door.open.lock().clone(),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until the host stops or `end` does; those that are open end with their last answer.
    pub(crate) async fn serve(self, end: watch::Receiver<bool>) {
        let mut stop = self.door.stop.subscribe();
        let mut ended = end.clone();
        tokio::select! {
            () = self.follow_files() => {}
            () = async { loop { accept(&self, &end).await } } => {}
            () = told(&mut stop) => {}
            () = told(&mut ended) => {}
        }
    }

    /// Reads the files again when they change. Never returns.
    async fn follow_files(&self) {
        if self.files().is_empty() {
            return std::future::pending().await;
        }
        let mut reload = Reload::new();
        loop {
            reload.watch(self.files());
            reload.changed().await;
            self.reload();
        }
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = self.tls.iter().flat_map(|(files, _)| files.paths()).collect();
        if let Access::Listener(Own { passwords: Some(passwords), .. }) = &*self.access {
            files.push(passwords.path.clone());
        }
        files
    }

    /// Reads the files again. What does not work is reported, and what worked before goes on.
    fn reload(&self) {
        let address = self.address;
        if let Some((files, current)) = &self.tls {
            match files.load() {
                Ok(loaded) if loaded.is_same(&current.read()) => {}
                Ok(loaded) => {
                    *current.write() = loaded;
                    info!(%address, certificate = %files.certificate.display(), "the certificate was read again");
                }
                Err(error) => error!(%address, %error, "the new certificate is not used; the one before goes on"),
            }
        }
        if let Access::Listener(Own { passwords: Some(file), .. }) = &*self.access {
            match Passwords::read(&file.path) {
                Ok(passwords) => *file.current.write() = passwords,
                Err(error) => error!(%address, %error, "the new passwords are not used; those before go on"),
            }
        }
    }

    fn admits(&self, from: IpAddr) -> bool {
        match &*self.access {
            Access::Tokens => true,
            Access::Listener(own) => own.sources.iter().any(|network| network.contains(from)),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.door.closed.remove(self.address);
    }
}

async fn accept(listening: &Listening, end: &watch::Receiver<bool>) {
    let (stream, from) = match listening.socket.accept().await {
        Ok((stream, from)) => (stream, unmapped(from.ip())),
        Err(error) => {
            warn!(address = %listening.address, %error, "cannot accept a connection");
            return sleep(ACCEPT_PAUSE).await;
        }
    };
    if !listening.admits(from) {
        debug!(address = %listening.address, %from, "a connection from elsewhere than `sources` is closed");
        return;
    }
    let Some(place) = listening.connections.enter(from) else {
        debug!(address = %listening.address, %from, "a connection is closed: there are too many");
        return;
    };
    let connection = Connection {
        door: Arc::clone(&listening.door),
        access: Arc::clone(&listening.access),
        from,
        end: end.clone(),
        _open: listening.open.clone(),
    };
    let tls = listening.tls.as_ref().map(|(_, current)| TlsAcceptor::from(current.read().config()));
    tokio::spawn(connection.run(stream, tls, place));
}

struct Connection {
    door: Arc<FrontDoor>,
    access: Arc<Access>,
    from: IpAddr,
    end: watch::Receiver<bool>,
    _open: Option<mpsc::Sender<()>>,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, mut place: Place) {
        // Answers are written in one piece or streamed; waiting for more helps neither.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIME));
        let stream = Box::pin(stream);
        match tls {
            None => self.serve(stream, &mut place).await,
            Some(acceptor) => {
                let handshake = tokio::select! {
                    shaken = timeout(HANDSHAKE_TIME, acceptor.accept(stream)) => shaken,
                    _ = &mut place.must_go => return,
                };
                match handshake {
                    Ok(Ok(stream)) => self.serve(stream, &mut place).await,
                    Ok(Err(error)) => debug!(from = %self.from, %error, "a TLS handshake failed"),
                    Err(_) => debug!(from = %self.from, "a TLS handshake took too long"),
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, place: &mut Place) {
        let requests = place.requests();
        let Self { door, access, from, mut end, .. } = self;
        let mut stop = door.stop.subscribe();
        let service = service_fn(|request| {
            let (door, access, requests) = (Arc::clone(&door), Arc::clone(&access), requests.clone());
            async move { Ok::<_, Infallible>(busy(&requests, door.handle(request, &access, from)).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(MAX_HEADER_BYTES)
                .max_header_size(MAX_HEADER_BYTES)
                .max_headers(MAX_HEADERS)
                .serve_connection(TokioIo::new(stream), service)
        );
        let result = tokio::select! {
            result = connection.as_mut() => Some(result),
            _ = &mut place.must_go => return,
            () = told(&mut stop) => None,
            () = told(&mut end) => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            debug!(%from, %error, "a connection broke off");
        }
    }
}

/// Resolves when the answer is yes, or nobody is left to say so.
async fn told(answer: &mut watch::Receiver<bool>) {
    let _ = answer.wait_for(|yes| *yes).await;
}

/// Counts the request until its answer is complete.
async fn busy(requests: &Requests, answer: impl Future<Output = Response<ResponseBody>>) -> Response<Held<Busy>> {
    let busy = requests.begin();
    answer.await.map(|body| Held::new(body, busy))
}

/// Standard base64 with padding, as RFC 7617 has it.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
