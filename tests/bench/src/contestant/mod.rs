//! What is measured, as processes: prepared, then started, then watched.

mod guests;
mod peers;
mod rights;

use harness::{Host, Metrics, Result, bail};
use wasm_operator_devel::Component;

use crate::stage::{Course, Stage};
use crate::variant::{Kind, Variant};

/// A variant with everything that comes before its start: rights, credentials, compiled components.
pub(crate) enum Contestant {
    Peers(peers::Peers),
    Host(Box<Host>),
}

/// A variant that runs. Killed when dropped.
pub(crate) enum Running {
    Peers(Vec<Component>),
    Host(Box<Host>),
}

impl Contestant {
    /// Prepares a variant for a ring. `launcher` is a command that executes what follows it; it may be empty.
    pub(crate) async fn prepare(
        variant: Variant,
        stage: &Stage,
        course: &Course,
        launcher: Vec<String>,
    ) -> Result<Self> {
        Ok(match variant.kind {
            Kind::Guests(sleep, components) => {
                Self::Host(Box::new(guests::prepare(stage, course, sleep, components, launcher).await?))
            }
            Kind::Programs(sleep) => {
                Self::Host(Box::new(guests::prepare_programs(stage, course, sleep, launcher).await?))
            }
            kind => Self::Peers(peers::prepare(stage, course, kind, launcher).await?),
        })
    }

    /// Starts it. Returns when all processes have been made; they may not be ready.
    pub(crate) async fn start(self) -> Result<Running> {
        Ok(match self {
            Self::Peers(peers) => Running::Peers(peers.start()?),
            Self::Host(mut host) => {
                host.start().await?;
                Running::Host(host)
            }
        })
    }
}

impl Running {
    /// Its processes.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        match self {
            Self::Peers(processes) => Ok(processes.iter().map(Component::id).collect()),
            Self::Host(host) => Ok([host.pid()?].into()),
        }
    }

    /// Fails when a process has ended.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self {
            Self::Host(host) => host.assert_alive(),
            Self::Peers(processes) => {
                for process in processes {
                    if let Some(status) = process.exit_status() {
                        bail!("a controller has ended ({status}). The end of its log:\n{}", process.log_tail());
                    }
                }
                Ok(())
            }
        }
    }

    /// The host's metrics; None for peers.
    pub(crate) async fn metrics(&self) -> Result<Option<Metrics>> {
        match self {
            Self::Peers(_) => Ok(None),
            Self::Host(host) => Ok(Some(host.metrics().await?)),
        }
    }
}
