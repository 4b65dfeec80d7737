//! End-to-end tests: the static host binary, real guests, a real etcd and kube-apiserver.
//!
//! One program, so that all tests share one control plane. `cargo test --release -p e2e sleep::` runs one theme.

// What a test calls may panic as the test itself may, and a missing field of a JSON value is null.
#![allow(clippy::indexing_slicing)]

mod admin;
mod cli;
mod crashes;
mod faults;
mod front_door;
mod informers;
mod languages;
mod limits;
mod misbehaving;
mod nodes;
mod offloader;
mod operator;
mod permissions;
mod prediction;
mod queue;
mod reads;
mod reload;
mod ring;
mod schema;
mod sleep;
