//! A ring of guests that pass a nonce on.

mod config;
mod laps;
mod report;

use std::time::Duration;

use anyhow::Result;
use wasm_operator_devel::Progress;

pub(in crate::demo) use self::config::GUESTS_IN_CHECKOUT;
use self::laps::Laps;
use super::cluster::{Cluster, HOST_NAMESPACE};
use super::host::{self, Host};
use super::{Arguments, Scenario, report as states};
use crate::run::print;

/// Laps of `--once`, and of the first round otherwise.
const LAPS: usize = 3;
/// Between two laps without `--once`: longer than the guests need to fall asleep.
const PAUSE: Duration = Duration::from_secs(5);

/// The host is dropped, and so killed, before its cluster.
pub(super) struct Ring {
    host: Host,
    laps: Laps,
    cluster: Cluster,
}

impl Scenario for Ring {
    const BUILT: &'static [&'static str] = &[config::RING, laps::CRD];

    async fn prepare(arguments: &Arguments) -> Result<Self> {
        let cluster = Cluster::provide().await?;
        let config = config::for_guests(arguments.guests)?;
        let laps = Laps::new(cluster.admin(), arguments.guests);
        let setup = async {
            cluster.apply(&std::fs::read_to_string(laps::CRD)?).await?;
            laps.wait_for_crd().await?;
            cluster.create_namespaces(laps.namespaces()).await?;
            cluster.create_namespaces([HOST_NAMESPACE.to_owned()]).await?;
            cluster.apply(&host::rbac(config.path(), cluster.host_kubeconfig()).await?).await
        };
        Progress::default().during("installing the CRD, the namespaces and the guests' rights", setup).await?;
        let host = Progress::default()
            .during("starting wasm-operator", Host::start(config, cluster.host_kubeconfig()))
            .await?;
        Ok(Self { host, laps, cluster })
    }

    async fn show(&mut self, once: bool) -> Result<()> {
        print(&format!("wasm-operator runs {} guests; its log: {}", self.laps.len(), self.host.log().display()))?;
        let mut laps = 0;
        loop {
            self.host.wait_until_asleep(self.laps.len()).await?;
            let lap = self.laps.lap().await?;
            laps += 1;
            print(&report::lap(laps, &lap))?;
            if laps == LAPS {
                let guests = self.host.wait_until_asleep(self.laps.len()).await?;
                print(&states::guests(&guests, self.host.memory()?))?;
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
