//! What an administrator sees of the running host: health, metrics and the log.

mod health;
mod logging;
pub(crate) mod metrics;
mod server;

pub(crate) use health::{Health, Verdict};
pub(crate) use logging::{LogFormat, init_logging};
pub(crate) use server::{Admin, serve};
