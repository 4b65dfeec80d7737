//! The engine against guests that mean well and guests that do not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod cache;
mod compile;
mod contract;
mod guests;
mod http;
mod limits;
mod memory;
mod program;
mod support;
