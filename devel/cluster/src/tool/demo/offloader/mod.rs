//! An OpenWhisk action runs in the cluster: it is offloaded, reconfigured, looked at and deleted. OpenWhisk is the stand-in of
//! `tests/openwhisk`, the nodes are simulated, everything else is real.

mod flow;
mod openwhisk;

use std::path::Path;

use anyhow::{Context as _, Result};
use wasm_operator_devel::{Node, Progress};

use self::flow::{Flow, NAMESPACE};
use self::openwhisk::OpenWhisk;
use super::cluster::{Cluster, HOST_NAMESPACE};
use super::config::{Config, absolute};
use super::host::{self, Host};
use super::{Arguments, Scenario, report};
use crate::run::print;

const GUEST: &str = "offloader";
const COMPONENT: &str = "target/wasm32-wasip2/guest/offloader.wasm";
const CRDS: &str = "guests/offloader/crds.yaml";

/// Dropped, and so killed, in this order.
pub(super) struct Offloader {
    host: Host,
    flow: Flow,
    openwhisk: OpenWhisk,
    cluster: Cluster,
}

impl Scenario for Offloader {
    const BUILT: &'static [&'static str] = &[COMPONENT, CRDS, openwhisk::PROGRAM];

    async fn prepare(_: &Arguments) -> Result<Self> {
        let nodes = ["cpu", "gpu"].map(|kind| Node::new(format!("{kind}-node")).label("processor", kind));
        let cluster = Cluster::with_nodes(nodes).await?;
        let directory = cluster.directory().context("a cluster of our own")?;
        let openwhisk = OpenWhisk::start(directory).await?;
        let config = Config::made(&configuration(&absolute(COMPONENT)?, openwhisk.url()))?;
        let flow = Flow::new(cluster.admin(), directory);
        let setup = async {
            cluster.apply(&std::fs::read_to_string(CRDS)?).await?;
            flow.wait_for_crds(CRDS).await?;
            cluster.create_namespaces([NAMESPACE, HOST_NAMESPACE].map(str::to_owned)).await?;
            cluster.apply(&host::rbac(config.path(), cluster.host_kubeconfig()).await?).await
        };
        Progress::default().during("installing the CRDs, the namespaces and the guest's rights", setup).await?;
        let host = Progress::default()
            .during("starting wasm-operator", Host::start(config, cluster.host_kubeconfig()))
            .await?;
        Ok(Self { host, flow, openwhisk, cluster })
    }

    async fn show(&mut self, once: bool) -> Result<()> {
        print(&format!("wasm-operator runs the guest `{GUEST}`; its log: {}", self.host.log().display()))?;
        self.asleep().await?;
        self.flow.target(self.openwhisk.url()).await?;
        print(&format!(
            "\nOpenWhisk is at {}; the OffloadTarget knows it and the Secret with its key",
            self.openwhisk.url()
        ))?;
        print(&self.flow.offload().await?)?;
        self.asleep().await?;
        print(&self.flow.reconfigure().await?)?;
        self.asleep().await?;
        print(&self.flow.logs().await?)?;
        print(&self.flow.delete().await?)?;
        self.asleep().await?;
        print(&format!("\nWhat OpenWhisk was asked and told:\n{}", self.openwhisk.requests()?))?;
        print(&report::guests(&self.host.states().await?, self.host.memory()?))?;
        if once {
            return Ok(());
        }
        if let Some(kubeconfig) = self.cluster.kubeconfig() {
            print(&format!(
                "Everything runs until Ctrl-C. To try it by hand: export KUBECONFIG={}",
                kubeconfig.display()
            ))?;
        }
        std::future::pending().await
    }

    async fn stop(mut self) -> Result<()> {
        let drained = self.host.stop().await;
        self.openwhisk.stop().await;
        self.cluster.stop().await?;
        drained
    }
}

impl Offloader {
    async fn asleep(&mut self) -> Result<()> {
        let states = self.host.wait_until_asleep(1).await?;
        let state = states.first().map_or("gone", |guest| guest.state.as_str());
        let wakes = self.host.wakes_of(GUEST).await?;
        print(&format!("  the guest is {state}; it was woken {wakes} times so far"))
    }
}

fn configuration(component: &Path, openwhisk: &str) -> String {
    format!(
        "name: {GUEST}\nwasm: {component:?}\npermissions: as-requested\nsleep: {{mode: Fixed, idleAfter: 1s}}\n\
         allowedHosts: [{openwhisk:?}]\nenv:\n  - {{name: OFFLOAD_NAMESPACES, value: {NAMESPACE}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_may_reach_openwhisk_and_its_own_namespace() {
        let text = configuration(Path::new("/a b/offloader.wasm"), "http://127.0.0.1:1");
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["wasm"], "/a b/offloader.wasm");
        assert_eq!(config["allowedHosts"][0], "http://127.0.0.1:1");
        assert_eq!(config["env"][0]["value"], NAMESPACE);
    }
}
