//! The offloader guest: OpenWhisk actions as Jobs. The identifiers in comments are those of its acceptance tests.

mod crashes;
mod create;
mod delete;
mod finish;
mod lookup;
mod placement;
mod quiet;
mod reconfigure;
mod stage;
