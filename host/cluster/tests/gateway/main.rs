//! The gateway against a real API server: what the server does, and what guests get of it.

#![allow(clippy::indexing_slicing, reason = "what is missing in a JSON value reads as null and fails the test")]

mod cached;
mod faults;
mod identity;
mod paths;
mod stage;
mod watches;
mod writes;
