//! OpenWhisk: what its API answers, and how it is asked.

mod callback;
mod client;
mod definition;

pub use callback::{Outcome, backoff, path, payload};
pub use client::{Connection, Error, Reply};
pub use definition::{Resolution, Unsupported, decode, placement_of};
