//! The pure logic of wasm-operator.
//!
//! Nothing here does I/O, reads a clock or knows a runtime: time comes in as an argument, decisions go out as values.
//! That is what makes queues, gates and life cycles testable against simple models.

pub mod allowed_host;
pub mod backoff;
pub mod description;
pub mod dispatch;
pub mod fair;
pub mod front_door;
pub mod gate;
pub mod headers;
pub mod history;
pub mod index;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod object;
pub mod permission;
pub mod prediction;
pub mod queue;
pub mod rate_limit;
pub mod reconcile;
pub mod request;
pub mod selector;
pub mod slots;
pub mod timer;
pub mod watch;
