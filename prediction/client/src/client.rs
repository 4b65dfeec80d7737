//! The client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer;
use crate::exchange::{Step, exchange};
use crate::refused::Refused;
use crate::url::{BadUrl, Target};

/// For a whole exchange, from the name's resolution to the end of the answer. A service beside the host takes a few.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
/// Requests of all guests at once. Further ones are refused, not queued: a forecast that comes late is of no use.
pub const MAX_IN_FLIGHT: usize = 4;
/// The latest events of a history that are sent, about 4 KiB. Every function of the service can learn from so many, and none
/// takes longer than the default timeout for them.
pub const MAX_HISTORY: usize = 128;
/// Names resolved at once. A resolution cannot be ended, so those that hang must not pile up.
const MAX_RESOLUTIONS: usize = 1;

/// Asks one prediction service. Clones are cheap and share their bounds.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: Target,
    function: Option<Box<str>>,
    timeout: Duration,
    /// The guests whose requests are under way, at most [`MAX_IN_FLIGHT`].
    in_flight: Mutex<Vec<Box<str>>>,
    resolutions: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Question<'a> {
    history: &'a [Timestamp],
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
}

impl Client {
    /// A client of the service at `url` (`http://host:port/path`; without a path, `/prediction`). `function` is the name of a
    /// forecast that the service knows; without one it chooses. `timeout` is for each whole exchange.
    ///
    /// # Errors
    /// When the URL is not one of plain HTTP.
    pub fn new(url: &str, function: Option<&str>, timeout: Duration) -> Result<Self, BadUrl> {
        Ok(Self(Arc::new(Shared {
            target: Target::parse(url)?,
            function: function.map(Into::into),
            timeout,
            in_flight: Mutex::new(Vec::new()),
            resolutions: Arc::new(Semaphore::new(MAX_RESOLUTIONS)),
        })))
    }

    /// The time from the last event of `history` (ascending; the last [`MAX_HISTORY`] count) to the event that the service
    /// expects next: more than zero, at most [`crate::MAX_AHEAD`]. It may be over already. Returns within the timeout;
    /// dropping it ends the request.
    ///
    /// # Errors
    /// Whenever there is no answer to believe. At most one request of each `guest` and [`MAX_IN_FLIGHT`] of all are made at once.
    pub async fn predict(&self, guest: &str, history: &[Timestamp]) -> Result<Duration, Refused> {
        let shared = &*self.0;
        let last = *history.last().ok_or(Refused::NoHistory)?;
        let _place = Place::take(&shared.in_flight, guest)?;
        let latest = history.get(history.len().saturating_sub(MAX_HISTORY)..).unwrap_or(history);
        let question = Question { history: latest, function: shared.function.as_deref() };
        // Times and a text: serialising them does not fail.
        let question = serde_json::to_vec(&question).map_err(|_| Refused::Broken)?;
        let mut step = Step(Refused::Unresolved);
        let asked = timeout(shared.timeout, shared.ask(question.into(), &mut step)).await;
        let body = asked.unwrap_or(Err(step.0))?;
        answer::read(&body, last)
    }
}

impl Shared {
    async fn ask(&self, question: Bytes, step: &mut Step) -> Result<Bytes, Refused> {
        let stream = match self.target.host.parse::<IpAddr>() {
            Ok(address) => {
                step.0 = Refused::Unreachable;
                TcpStream::connect(SocketAddr::new(address, self.target.port)).await
            }
            Err(_) => {
                let addresses = self.resolve().await?;
                step.0 = Refused::Unreachable;
                TcpStream::connect(&*addresses).await
            }
        };
        let stream = stream.map_err(|_| Refused::Unreachable)?;
        // The request is written at once and waits for nothing.
        let _ = stream.set_nodelay(true);
        exchange(stream, &self.target, question, step).await
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Refused> {
        let place = self.resolutions.clone().acquire_owned().await.map_err(|_| Refused::Unresolved)?;
        let name = (self.target.host.to_string(), self.target.port);
        // A task, because the place is taken until the resolution ends, whether or not someone still waits for it.
        let resolution = tokio::spawn(async move {
            let _place = place;
            tokio::net::lookup_host(name).await.map(Iterator::collect::<Vec<_>>)
        });
        match resolution.await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            _ => Err(Refused::Unresolved),
        }
    }
}

/// A guest's place among the requests under way.
struct Place<'a> {
    taken: &'a Mutex<Vec<Box<str>>>,
    guest: &'a str,
}

impl<'a> Place<'a> {
    fn take(taken: &'a Mutex<Vec<Box<str>>>, guest: &'a str) -> Result<Self, Refused> {
        let mut guests = taken.lock();
        if guests.iter().any(|other| **other == *guest) {
            return Err(Refused::GuestBusy);
        }
        if guests.len() >= MAX_IN_FLIGHT {
            return Err(Refused::HostBusy);
        }
        guests.push(guest.into());
        drop(guests);
        Ok(Self { taken, guest })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.taken.lock().retain(|guest| **guest != *self.guest);
    }
}
