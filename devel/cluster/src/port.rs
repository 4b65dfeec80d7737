//! Free loopback ports.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up by default): there, any
/// client could take the port of a stopped server.
const RANGE: Range<u16> = 20_000..32_000;

/// A port that is kept from others: bound, but not listening, so that clients are refused.
#[derive(Debug)]
pub(crate) struct Reservation {
    port: u16,
    _socket: OwnedFd,
}

impl Reservation {
    /// Takes any free port.
    pub(crate) fn any() -> io::Result<Self> {
        let random = RandomState::new().hash_one("port");
        let offset = u16::try_from(random % RANGE.len() as u64).unwrap_or_default();
        let candidates = (RANGE.start + offset..RANGE.end).chain(RANGE.start..RANGE.start + offset);
        for port in candidates {
            // Without SO_REUSEADDR the bind fails when somebody else has the port in whatever way.
            if let Ok(reservation) = Self::bind(port, false) {
                return Ok(reservation);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end),
        ))
    }

    /// Keeps the port of a server that has just ended. Its closed connections may still linger, hence SO_REUSEADDR.
    pub(crate) fn hold(port: u16) -> io::Result<Self> {
        Self::bind(port, true)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn bind(port: u16, reuse: bool) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, reuse)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        Ok(Self { port, _socket: socket })
    }
}

/// A loopback port that is free at this moment. Who listens on it must be ready to find it taken.
pub fn free_port() -> io::Result<u16> {
    Ok(Reservation::any()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_refuses_clients_and_is_given_to_nobody_else() {
        let reserved = Reservation::any().unwrap();
        let address = (Ipv4Addr::LOCALHOST, reserved.port());
        assert_eq!(std::net::TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(Reservation::bind(reserved.port(), false).is_err());
    }

    #[test]
    fn a_held_port_can_be_taken_after_release() {
        let port = Reservation::any().unwrap().port();
        drop(Reservation::hold(port).unwrap());
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
