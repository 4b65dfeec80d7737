//! The stage of the end-to-end tests: a real control plane, the static host binary as a child process with rights of its own, a network between the two that
//! can be disturbed, and eyes on everything: the cluster by watch, the API server by its audit log, the host by its log, metrics and memory.
//!
//! ```no_run
//! #[test]
//! fn a_guest_reconciles() -> harness::Result<()> {
//!     harness::test(async |space| {
//!         let host = space.host().guest(harness::Guest::new("hello", "template")).start().await?;
//!         host.log().wait("the guest runs", |line| line.field("guest") == Some("hello")).await?;
//!         Ok(())
//!     })
//! }
//! ```

mod audit;
mod cluster;
mod config;
mod crash;
mod credential;
mod crossing;
mod host;
mod http;
mod logs;
mod metrics;
mod paths;
pub mod programs;
mod proxy;
mod random;
mod rights;
pub mod ring;
mod run;
mod space;
mod statistics;
mod wait;

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use audit::{Audit, AuditEvent};
pub use cluster::{Cluster, OwnCluster};
pub use config::{Guest, Rule, documents};
pub use crash::{Failure, Fault, Protocol, Report, Stage, crash_after_every_write, difference, normalise};
pub use credential::{audience_token, service_account_token, write_kubeconfig};
pub use host::command::{Output, cache_arguments, command, output};
pub use host::memory::{Memory, memory_of};
pub use host::{Host, HostBuilder};
pub use http::{Answer, HttpClient};
pub use logs::{Log, LogLine};
pub use metrics::Metrics;
pub use paths::{component, logs_directory, program, target};
pub use proxy::Proxy;
pub use random::Random;
pub use rights::may;
pub use run::{measure, test, test_with_nodes};
pub use space::Space;
pub use statistics::Latencies;
pub use wait::{PATIENCE, eventually, eventually_within, until_object};
