//! The demo: a ring of guests on a real control plane.

mod cluster;
mod config;
mod host;
mod manifest;
mod metrics;
mod report;
mod ring;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use wasm_operator_devel::Progress;

use self::cluster::Cluster;
use self::host::Host;
use self::ring::Ring;
use crate::run::print;
use crate::signals::{INTERRUPTED, Interrupts};

/// Laps of `--once`, and of the first round otherwise.
const LAPS: usize = 3;
/// Between two laps without `--once`: longer than the guests need to fall asleep.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Ends after a few laps instead of going on until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// How many guests form the ring. Other than 10, the configuration is made for the purpose instead of taken from
    /// `wasm_config.yaml`.
    #[arg(long, default_value_t = config::GUESTS_IN_CHECKOUT, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    guests: u16,
}

/// Everything that runs. The host is dropped, and so killed, before its cluster.
struct Demo {
    host: Host,
    ring: Ring,
    cluster: Cluster,
}

pub(crate) async fn execute(arguments: Arguments) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    // What is under way when an interrupt comes is dropped, and with it every process that it started.
    let mut demo = tokio::select! {
        demo = Demo::prepare(arguments.guests) => demo?,
        () = interrupts.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let code = tokio::select! {
        outcome = demo.show(arguments.once) => outcome.map(|()| ExitCode::SUCCESS),
        () = interrupts.next() => Ok(ExitCode::from(if arguments.once { INTERRUPTED } else { 0 })),
    };
    let stopped = demo.stop().await;
    code.and_then(|code| stopped.map(|()| code))
}

impl Demo {
    async fn prepare(guests: u16) -> Result<Self> {
        for built in [host::PROGRAM, config::RING, ring::CRD] {
            ensure!(
                Path::new(built).exists(),
                "`{built}` is not here; `devel/demo` in a checkout builds all and calls this"
            );
        }
        let cluster = Cluster::provide().await?;
        let config = config::for_guests(guests)?;
        let ring = Ring::new(cluster.admin(), guests);
        let setup = async {
            cluster.apply(&std::fs::read_to_string(ring::CRD)?).await?;
            ring.wait_for_crd().await?;
            cluster.create_namespaces(ring.namespaces()).await?;
            cluster.create_namespaces([cluster::HOST_NAMESPACE.to_owned()]).await?;
            cluster.apply(&host::rbac(config.path(), cluster.host_kubeconfig()).await?).await
        };
        Progress::default().during("installing the CRD, the namespaces and the guests' rights", setup).await?;
        let host = Progress::default()
            .during("starting wasm-operator", Host::start(config, cluster.host_kubeconfig()))
            .await?;
        Ok(Self { host, ring, cluster })
    }

    async fn show(&mut self, once: bool) -> Result<()> {
        print(&format!("wasm-operator runs {} guests; its log: {}", self.ring.len(), self.host.log().display()))?;
        let mut laps = 0;
        loop {
            self.host.wait_until_asleep(self.ring.len()).await?;
            let lap = self.ring.lap().await?;
            laps += 1;
            print(&report::lap(laps, &lap))?;
            if laps == LAPS {
                let states = self.host.wait_until_asleep(self.ring.len()).await?;
                print(&report::guests(&states, self.host.memory()?))?;
                if once {
                    return Ok(());
                }
                print("A lap every few seconds until Ctrl-C.")?;
            }
            if laps >= LAPS {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn stop(mut self) -> Result<()> {
        let drained = self.host.stop().await;
        self.cluster.stop().await?;
        drained
    }
}
