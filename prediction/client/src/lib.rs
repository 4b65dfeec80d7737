//! The host's use of a prediction service: it asks after a guest has become idle, never on the way of an event, and believes
//! an answer only where it makes sense. Whatever the service does (nothing, slowly, too much, nonsense) ends as a
//! [`Refused`], within the timeout and within [`MAX_ANSWER_BYTES`], and changes nothing else.
//!
//! Plain HTTP, one connection for each request: a client at rest holds a few hundred bytes and no socket.

mod answer;
mod client;
mod exchange;
mod refused;
mod url;

pub use answer::MAX_AHEAD;
pub use client::{Client, DEFAULT_TIMEOUT, MAX_HISTORY, MAX_IN_FLIGHT};
pub use exchange::MAX_ANSWER_BYTES;
pub use refused::Refused;
pub use url::BadUrl;
