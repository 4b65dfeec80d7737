//! Bounds of the service. Whoever can reach it may be slow or hostile.

use std::time::Duration;

/// Events in a history: more than any function can use, while the dearest (`Winter` with the longest season) takes about a
/// second.
pub const MAX_EVENTS: usize = 4096;
/// Bytes of a request's body: [`MAX_EVENTS`] times with nanoseconds and offset, and some space.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// Connections at once. At the limit the oldest goes, so that silent ones keep nobody out.
pub const MAX_CONNECTIONS: usize = 64;
/// From the beginning of a request to the end of its headers, and for the next request on a connection.
pub const HEADER_TIME: Duration = Duration::from_secs(10);
/// From the end of the headers to the end of the body.
pub const BODY_TIME: Duration = Duration::from_secs(5);
/// For a place among the computations: who asks for a forecast has long gone on without it.
pub const QUEUE_TIME: Duration = Duration::from_secs(5);
/// A connection with all its requests and answers; a client connects again.
pub const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// What requests under way have to end after SIGTERM.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Headers of a request, in bytes and in number.
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// See [`MAX_HEADER_BYTES`].
pub const MAX_HEADERS: usize = 64;
/// Wait after a failed accept, which most likely means that descriptors have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
