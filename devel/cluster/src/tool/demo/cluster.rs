//! The cluster of a demo: our own, or the one that `KUBECONFIG` names.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::json;
use wasm_operator_devel::{ControlPlane, Node, Options, Progress, User};

use super::manifest;
use crate::run::print;

/// Where the host and the guests have their ServiceAccounts.
pub(super) const HOST_NAMESPACE: &str = "wasm-operator";
const HOST_ACCOUNT: &str = "wasm-operator";

pub(super) struct Cluster {
    control_plane: Option<ControlPlane>,
    admin: Client,
    host_kubeconfig: PathBuf,
}

impl Cluster {
    pub(super) async fn provide() -> Result<Self> {
        match kubeconfig() {
            Some(path) => Self::existing(path).await,
            None => Self::own(Options::default()).await,
        }
    }

    /// One of our own, whose nodes are simulated: a demo that runs pods would need images anywhere else.
    pub(super) async fn with_nodes(nodes: impl IntoIterator<Item = Node>) -> Result<Self> {
        if let Some(path) = kubeconfig() {
            let path = path.display();
            print(&format!("KUBECONFIG={path} is left alone: this demo runs pods that only simulated nodes can run"))?;
        }
        Self::own(nodes.into_iter().fold(Options::default(), Options::node)).await
    }

    async fn existing(kubeconfig: PathBuf) -> Result<Self> {
        let path = kubeconfig.display();
        // Read from the variable, which may list several files.
        let config = Config::from_kubeconfig(&KubeConfigOptions::default()).await;
        let admin = Client::try_from(config.with_context(|| format!("cannot use `KUBECONFIG={path}`"))?)?;
        print(&format!("Using the cluster of KUBECONFIG={path}"))?;
        Ok(Self { control_plane: None, admin, host_kubeconfig: kubeconfig })
    }

    async fn own(options: Options) -> Result<Self> {
        // The host gets the rights that it would have in a cluster, and no more.
        let account = User::service_account(HOST_NAMESPACE, HOST_ACCOUNT);
        let name = account.name.clone();
        let progress = Progress::default();
        let options = options.user(account);
        options.build(progress).await?;
        let control_plane = progress.during("starting the control plane", ControlPlane::start(options)).await?;
        let host_kubeconfig = control_plane.kubeconfig_for(&name)?.to_owned();
        Ok(Self { admin: control_plane.client().await?, host_kubeconfig, control_plane: Some(control_plane) })
    }

    /// Kubeconfig of the administrator, if the cluster is ours.
    pub(super) fn kubeconfig(&self) -> Option<PathBuf> {
        self.control_plane.as_ref().map(ControlPlane::kubeconfig)
    }

    /// A directory that goes away with the cluster, if that is ours.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.control_plane.as_ref().map(ControlPlane::directory)
    }

    pub(super) fn admin(&self) -> Client {
        self.admin.clone()
    }

    pub(super) fn host_kubeconfig(&self) -> &Path {
        &self.host_kubeconfig
    }

    pub(super) async fn apply(&self, manifest: &str) -> Result<()> {
        for document in manifest::documents(manifest)? {
            manifest::apply(&self.admin, document).await?;
        }
        Ok(())
    }

    pub(super) async fn create_namespaces(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        for name in names {
            manifest::apply(
                &self.admin,
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
            )
            .await?;
        }
        Ok(())
    }

    pub(super) async fn stop(self) -> Result<()> {
        match self.control_plane {
            Some(control_plane) => control_plane.stop().await,
            None => print(
                "The cluster is not ours, so the CRD, the namespaces and the roles stay. To remove them, delete the CRD \
                `testresources.ring.wasm-operator.dev`, the namespaces `ring-*` and \
                `wasm-operator`, and the ClusterRole and ClusterRoleBinding `wasm-operator:wasm-operator:watch`.",
            )?,
        }
        Ok(())
    }
}

fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}
