//! Guests that keep account of their memory, hibernated in every way, and what goes wrong meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod guest;
mod memory;
