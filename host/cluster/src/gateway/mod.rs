//! The gateway: the only way from a guest to the API server and to other hosts.
//!
//! A request is parsed strictly, checked against the guest's rules, answered from the shared caches where it asks for
//! that, and else sent with the guest's own identity. Refusals are answers with a Kubernetes `Status`, so that clients
//! handle them as any other error.
//!
//! Guests run on threads of their own. Whatever happens here happens in the context of the gateway's runtime: its
//! connections and timers never wait for a guest that computes. Writes run as tasks there, so that a guest which is
//! dropped in the middle of one does not leave its outcome open.

mod api;
mod body;
mod cached;
mod caches;
mod error;
mod forward;
mod identity;
mod managed_fields;
mod metrics;
mod outbound;
mod render;
mod retry;
mod runtime;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri};
use kube::Client;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasm_operator_core::allowed_host::AllowedHost;
use wasm_operator_core::gate::{Gate, ResourceKey, Scope};
use wasm_operator_core::limits::Limits;
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::permission::{Permissions, ServiceAccountUser};
use wasm_operator_core::timer::Time;

use crate::events::EventRecorder;
use crate::rights::Rights;

pub use body::Body;
pub use caches::{Cache, Caches, Snapshot};
pub use error::{BodyError, SendError};
pub(crate) use forward::chain;
pub use identity::IdentityError;
pub use metrics::{CallLabels, DeniedLabels, DurationLabels, GatewayMetrics, RequestLabels};
pub use outbound::{Authorities, ClosedAddresses, InvalidAuthorities};

/// The authority that stands for the API server, as guests write it. The whole text is compared: a host name alone
/// would let `user@kubernetes.default.svc` pass.
pub const API_AUTHORITY: &str = "kubernetes.default.svc";

/// Requests in flight from all guests together. Default 512: each may hold a connection and a buffer.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 512;

/// What holds for all guests.
#[derive(Clone)]
pub struct Options {
    /// Where connections and timers live. Not a runtime on which guests run.
    pub runtime: Handle,
    /// Where denials are reported.
    pub events: EventRecorder,
    /// Requests in flight from all guests together.
    pub max_in_flight: usize,
    /// The value of the label `host` in client metrics: the API server's address.
    pub api_server: String,
    /// Addresses that no guest reaches whatever its `allowedHosts` say: the admin endpoint and the front door.
    pub closed_addresses: ClosedAddresses,
}

impl Options {
    /// The defaults on this runtime, without Events.
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            events: EventRecorder::disabled(),
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            api_server: API_AUTHORITY.to_owned(),
            closed_addresses: ClosedAddresses::default(),
        }
    }
}

/// What one guest may do and use.
#[derive(Debug, Clone)]
pub struct GuestAccess {
    /// The guest's name.
    pub name: Arc<str>,
    /// Its identity: `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// The granted rules.
    pub permissions: Permissions,
    /// Hosts other than the API server.
    pub allowed_hosts: Vec<AllowedHost>,
    /// What vouches for them; none: the public authorities alone.
    pub authorities: Option<Authorities>,
    /// Sizes, times and numbers.
    pub limits: Limits,
    /// The guest keeps watches open, as a program with a loop of its own does: its watches, and the lists with which they
    /// begin, are served from the shared informers.
    pub shared_watches: bool,
    /// The field manager of a native controller whose place the guest takes; its fields stay owned.
    pub adopt_field_manager: Option<String>,
}

/// An access that no guest can be given. The administrator has to change the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAccess {
    /// Without a proper identity the server would take the guest for the host.
    #[error("`{0}` is not an identity for a guest; it must be `system:serviceaccount:<namespace>:<name>`")]
    User(String),
    /// The name goes into headers and field managers.
    #[error("`{0}` is not a name for a guest; use at most 63 lower-case letters, digits and `-`")]
    Name(String),
    /// A field manager has at most 128 printable bytes.
    #[error("`{0}` is not a field manager: at most 128 printable ASCII characters")]
    FieldManager(String),
}

/// The way from guests to the API server.
pub struct Gateway {
    shared: Arc<Shared>,
    /// So that a guest whose configuration changes keeps what is known of its writes.
    guests: Mutex<HashMap<Arc<str>, Weak<GuestGateway>>>,
}

struct Shared {
    client: Client,
    caches: Arc<dyn Caches>,
    rights: Rights,
    metrics: GatewayMetrics,
    options: Options,
    in_flight: Arc<Semaphore>,
    outbound: outbound::Outbound,
    started: Instant,
}

/// The gateway as one guest sees it.
pub struct GuestGateway {
    shared: Arc<Shared>,
    current: RwLock<Arc<Current>>,
    writes: Mutex<Writes>,
    /// Resources whose writes are to be forgotten. Apart from them, because the reader of a cache says so, and that must
    /// not wait for one who reads the cache.
    forgotten: Mutex<HashSet<ResourceKey>>,
    watches: Arc<watch::Watches>,
}

/// What is known of a guest's writes.
#[derive(Default)]
struct Writes {
    gate: Gate,
    /// Resources for which a list is under way because a write's outcome is unknown.
    listing: HashSet<ResourceKey>,
}

/// What a change of the configuration replaces as a whole.
struct Current {
    access: GuestAccess,
    user: HeaderValue,
    user_agent: HeaderValue,
    in_flight: Arc<Semaphore>,
}

impl Gateway {
    /// `client` must set no identity of its own: see [`crate::client::connect`].
    pub fn new(
        client: Client,
        caches: Arc<dyn Caches>,
        rights: Rights,
        metrics: GatewayMetrics,
        options: Options,
    ) -> Self {
        let shared = Shared {
            client,
            caches,
            rights,
            metrics,
            in_flight: Arc::new(Semaphore::new(options.max_in_flight)),
            outbound: outbound::Outbound::new(options.closed_addresses.clone()),
            options,
            started: Instant::now(),
        };
        Self { shared: Arc::new(shared), guests: Mutex::default() }
    }

    /// The gateway of one guest. Called again with the same name it changes the access of the one that is there.
    pub fn guest(&self, access: GuestAccess) -> Result<Arc<GuestGateway>, InvalidAccess> {
        let current = Arc::new(Current::new(access)?);
        let name = current.access.name.clone();
        self.shared.metrics.add(&name);
        let mut guests = self.guests.lock();
        guests.retain(|_, guest| guest.strong_count() > 0);
        if let Some(guest) = guests.get(&name).and_then(Weak::upgrade) {
            *guest.current.write() = current;
            guest.watches.recheck();
            return Ok(guest);
        }
        let guest = Arc::new(GuestGateway {
            shared: self.shared.clone(),
            current: RwLock::new(current),
            writes: Mutex::default(),
            forgotten: Mutex::default(),
            watches: Arc::default(),
        });
        guests.insert(name, Arc::downgrade(&guest));
        Ok(guest)
    }

    /// Takes the metrics of a guest away that was removed.
    pub fn forget(&self, guest: &str) {
        self.shared.metrics.remove(guest);
    }

    /// Asks the API server who a guest with this identity is, and compares. To be called when a guest starts and when its
    /// identity changes; a guest whose identity does not hold must not run.
    pub async fn verify_identity(&self, user: &str) -> Result<(), IdentityError> {
        let shared = self.shared.clone();
        let user = user.to_owned();
        runtime::within(&self.shared.options.runtime, async move {
            let _turn = shared.rights.turn().await;
            identity::verify(&shared.client, &user).await
        })
        .await
    }
}

impl Current {
    fn new(access: GuestAccess) -> Result<Self, InvalidAccess> {
        let name = access.name.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if name.is_empty() || name.len() > 63 || !name.iter().all(plain) {
            return Err(InvalidAccess::Name(access.name.to_string()));
        }
        let bad_user = || InvalidAccess::User(access.user.clone());
        ServiceAccountUser::parse(&access.user).ok_or_else(bad_user)?;
        let user = HeaderValue::from_str(&access.user).map_err(|_| bad_user())?;
        if let Some(manager) = access.adopt_field_manager.as_ref().filter(|m| !identity::is_field_manager(m)) {
            return Err(InvalidAccess::FieldManager(manager.clone()));
        }
        let user_agent = format!("wasm-operator/{} guest/{}", env!("CARGO_PKG_VERSION"), access.name);
        Ok(Self {
            user,
            user_agent: HeaderValue::from_str(&user_agent).map_err(|_| InvalidAccess::Name(access.name.to_string()))?,
            in_flight: Arc::new(Semaphore::new(access.limits.requests_in_flight as usize)),
            access,
        })
    }

    fn deadline(&self, timeout: Duration) -> Instant {
        Instant::now() + timeout.min(Duration::from_millis(self.access.limits.request_milliseconds))
    }
}

impl GuestGateway {
    /// Sends a request of the guest. `timeout` is the guest's own; the ceiling is `requestMilliseconds`, and it holds
    /// for the answer's body as well, but for the watches of a guest with [`GuestAccess::shared_watches`]: those last. An
    /// error means that there is no answer at all.
    pub fn send(
        self: &Arc<Self>,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response<Body>, SendError>> {
        let guest = self.clone();
        let current = self.current.read().clone();
        let handle = self.shared.options.runtime.clone();
        Box::pin(runtime::within(&handle, async move {
            let deadline = current.deadline(timeout);
            let waits = timeout.min(Duration::from_millis(current.access.limits.request_milliseconds));
            if is_api(request.uri()) {
                Ok(guest.api(current, request, deadline).await)
            } else {
                let answer = guest.shared.outbound.send(&current.access, &current.in_flight, request, deadline);
                match tokio::time::timeout_at(deadline, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Err(SendError::Timeout(waits)),
                }
            }
        }))
    }

    /// Says whether the guest is awake; at the beginning it is not. Only then its watches get bookmarks: one that sleeps is not
    /// to be woken by the news that there are none.
    pub fn set_awake(&self, awake: bool) {
        self.watches.set_awake(awake);
    }

    /// Is the echo of one of the guest's own writes still under way to it? Such a guest is not put to sleep.
    pub fn echo_pending(&self) -> bool {
        self.next_echo(&Awaited::All).is_some()
    }

    /// Resolves when [`GuestGateway::echo_pending`] is false, after five seconds at the latest.
    pub fn echo_settled(self: &Arc<Self>) -> BoxFuture<'static, ()> {
        self.settled(Awaited::All)
    }

    /// Resolves when the caches show what this guest wrote to the object, so that it is not reconciled from an older state:
    /// at once if nothing is under way, after five seconds at the latest.
    pub async fn own_writes_seen(self: &Arc<Self>, group: &str, plural: &str, object: &ObjectRef) {
        if !self.writes().gate.is_empty() {
            let resource = ResourceKey { group: group.into(), plural: plural.into() };
            self.settled(Awaited::Object(resource, object.clone())).await;
        }
    }

    fn settled(self: &Arc<Self>, awaited: Awaited) -> BoxFuture<'static, ()> {
        let guest = self.clone();
        let handle = self.shared.options.runtime.clone();
        Box::pin(runtime::within(&handle, async move {
            // The change is subscribed to before the gate is asked, so none is missed in between.
            while let Some((changed, until)) = guest.next_echo(&awaited) {
                let wait = until.since(guest.shared.now());
                let _ = tokio::time::timeout(wait, changed).await;
            }
        }))
    }

    /// Forgets what is waited for of this resource: the cluster has a new history, such as one from a backup, and its
    /// versions would be waited for in vain. Never blocks for long, so that the reader of a stream may call it.
    pub fn forget_writes(&self, group: &str, plural: &str) {
        self.forgotten.lock().insert(ResourceKey { group: group.into(), plural: plural.into() });
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        let forgotten = std::mem::take(&mut *self.forgotten.lock());
        let mut writes = self.writes.lock();
        for resource in forgotten {
            writes.gate.clear(&resource);
        }
        writes
    }

    fn next_echo(&self, awaited: &Awaited) -> Option<(BoxFuture<'static, ()>, Time)> {
        let now = self.shared.now();
        let mut writes = self.writes();
        let (resources, scope) = match awaited {
            Awaited::All => (writes.gate.resources().cloned().collect(), Scope::ALL),
            Awaited::Object(resource, object) => (vec![resource.clone()], Scope::of(object)),
        };
        for resource in resources {
            self.settle(&mut writes.gate, &resource);
            if !writes.gate.remembers(&resource) {
                continue;
            }
            for cache in self.caches(&resource.group, &resource.plural) {
                let changed = cache.changed();
                let mut until = None;
                cache.read(&mut |snapshot| {
                    until = writes.gate.is_echo_pending(&resource, scope, snapshot.as_view(), now);
                });
                if let Some(until) = until {
                    return Some((changed, until));
                }
            }
        }
        None
    }
}

/// Which of its own writes a guest waits for.
enum Awaited {
    /// All that it will hear of.
    All,
    /// Those to one object.
    Object(ResourceKey, ObjectRef),
}

impl Drop for GuestGateway {
    fn drop(&mut self) {
        self.watches.end();
    }
}

impl Shared {
    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn is_api(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    uri.scheme_str() == Some("https")
        && (authority == API_AUTHORITY || authority.strip_suffix(":443") == Some(API_AUTHORITY))
}

#[cfg(test)]
mod tests;
