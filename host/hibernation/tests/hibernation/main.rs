//! Guests that keep account of their memory, hibernated in every way, and what goes wrong meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use wasm_operator_hibernation::Allocator;

mod alone;
mod contexts;
mod directory;
mod faults;
mod guest;
mod memory;
mod several;
mod sharing;
mod stress;
mod turns;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;
