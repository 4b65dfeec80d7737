//! Which connections a listener has, and which has to go when there are too many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Connections of a listener at once.
const MAX_CONNECTIONS: usize = 256;
/// Connections from one address: what a busy client, or a node that hides many, needs.
const MAX_PER_ADDRESS: usize = 64;

/// The connections of one listener.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, Open>>,
}

struct Open {
    from: IpAddr,
    /// Requests under way; a connection without is the first to go.
    requests: Arc<AtomicUsize>,
    /// Dropped to end the connection.
    _hold: oneshot::Sender<()>,
}

/// A connection's place. Given up when it is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    requests: Arc<AtomicUsize>,
    /// Ends when the connection has to go.
    pub(super) must_go: oneshot::Receiver<()>,
}

impl Connections {
    /// A place for a new connection; None if there is none. Where all are taken, the oldest connection without a request
    /// goes: whoever opens connections and sends nothing keeps nobody out.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let mut open = self.open.lock();
        if open.values().filter(|connection| connection.from == from).count() >= MAX_PER_ADDRESS {
            return None;
        }
        if open.len() >= MAX_CONNECTIONS {
            let idle = open.iter().find(|(_, connection)| connection.requests.load(Ordering::Relaxed) == 0);
            let number = *idle?.0;
            open.remove(&number);
        }
        let number = open.last_key_value().map_or(0, |(last, _)| last.wrapping_add(1));
        let (hold, must_go) = oneshot::channel();
        let requests = Arc::new(AtomicUsize::new(0));
        open.insert(number, Open { from, requests: Arc::clone(&requests), _hold: hold });
        Some(Place { connections: Arc::clone(self), number, requests, must_go })
    }
}

impl Place {
    /// Counts a request until what this returns is dropped.
    pub(super) fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.requests))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The number may have been given to another one since, if this one had to go.
        let mut open = self.connections.open.lock();
        if open.get(&self.number).is_some_and(|connection| Arc::ptr_eq(&connection.requests, &self.requests)) {
            open.remove(&self.number);
        }
    }
}

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Requests(Arc<AtomicUsize>);

/// A request under way.
pub(super) struct Busy(Requests);

impl Requests {
    pub(super) fn begin(&self) -> Busy {
        self.0.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        IpAddr::from([10, 0, u8::try_from(number / MAX_PER_ADDRESS).unwrap(), 1])
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_PER_ADDRESS).map(|_| connections.enter(address(0)).unwrap()).collect();
        assert!(connections.enter(address(0)).is_none());
        assert!(connections.enter(address(MAX_PER_ADDRESS)).is_some());
        drop(places);
        assert!(connections.enter(address(0)).is_some());
        assert!(connections.open.lock().is_empty());
    }

    #[test]
    fn the_oldest_idle_connection_goes_and_one_with_a_request_stays() {
        let connections = Arc::new(Connections::default());
        let mut places: Vec<_> =
            (0..MAX_CONNECTIONS).map(|number| connections.enter(address(number)).unwrap()).collect();
        let busy = places[0].requests().begin();
        let new = connections.enter(address(MAX_CONNECTIONS)).unwrap();
        assert!(places[0].must_go.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert!(places[1].must_go.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(connections.open.lock().len(), MAX_CONNECTIONS);

        let all: Vec<_> = places.iter().skip(2).map(|place| place.requests().begin()).collect();
        let last = new.requests().begin();
        assert!(connections.enter(address(2 * MAX_CONNECTIONS)).is_none(), "all are busy");
        drop(all);
        assert!(connections.enter(address(2 * MAX_CONNECTIONS)).is_some());
        drop((places, new, busy, last));
        assert!(connections.open.lock().is_empty());
    }
}
