//! The host's own addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;
use wasm_operator_core::allowed_host::unmapped;

use super::address;

/// Where the host itself listens: no guest reaches these, whatever its `allowedHosts` say. Port 0 stands for every port, for
/// the node's own address. A handle: clones are the same, and listeners come and go while guests run.
#[derive(Debug, Clone, Default)]
pub struct ClosedAddresses(Arc<RwLock<Vec<SocketAddr>>>);

impl ClosedAddresses {
    /// Closes an address from now on. As often as it is added it has to be removed.
    pub fn add(&self, address: SocketAddr) {
        self.0.write().push(address);
    }

    /// Nothing of the host listens there any more.
    pub fn remove(&self, address: SocketAddr) {
        let mut closed = self.0.write();
        if let Some(place) = closed.iter().position(|closed| *closed == address) {
            closed.swap_remove(place);
        }
    }

    /// Whether the address is one of these. `ip` is unmapped.
    pub(super) fn contains(&self, ip: IpAddr, port: u16) -> bool {
        self.0.read().iter().any(|closed| {
            let same = unmapped(closed.ip()) == ip;
            // What listens on every address is closed on each of the node's own.
            (closed.port() == port || closed.port() == 0)
                && (same || closed.ip().is_unspecified() && address::is_own(ip))
        })
    }
}

impl FromIterator<SocketAddr> for ClosedAddresses {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        Self(Arc::new(RwLock::new(addresses.into_iter().collect())))
    }
}
