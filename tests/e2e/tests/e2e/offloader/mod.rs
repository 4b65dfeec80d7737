//! The offloader guest: OpenWhisk actions as Jobs. The identifiers in comments are those of its acceptance tests.

mod crash;
mod create;
mod delete;
mod facade;
mod finish;
mod lookup;
mod placement;
mod push;
mod quiet;
mod reconfigure;
mod stage;
