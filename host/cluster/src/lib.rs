//! Kubernetes for the host: shared informers, and the gateway through which guests reach the API server.
//!
//! Nothing here knows WebAssembly.

mod cache;
pub mod callers;
pub mod client;
pub mod events;
pub mod gateway;
pub mod informer;
mod kinds;
pub mod metrics;
pub mod reachability;
pub mod rights;
