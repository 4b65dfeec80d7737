//! Control planes: one that all tests share, and others for tests that disturb theirs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::OnceCell;
use wasm_operator_devel::{ControlPlane, Node, Options, State, kubernetes_client};

use crate::audit::{self, Audit};
use crate::credential::server_of;
use crate::paths::logs_directory;
use crate::wait::until_object;

const RING_CRD: &str = include_str!("../../../guests/ring/crd.yaml");
/// The name that a running control plane's [`State`] gives to its audit log.
const AUDIT: &str = "audit";

/// How to reach a control plane.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    audit: PathBuf,
}

/// A control plane of one test.
#[derive(Debug)]
pub struct OwnCluster {
    /// To stop, start and compact.
    pub control_plane: ControlPlane,
    cluster: Cluster,
}

impl Cluster {
    /// The control plane of this run: the one that the environment names if it keeps an audit log, else one that ends with this process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<(Cluster, Option<ControlPlane>)> = OnceCell::const_new();
        Self::once(&SHARED, "shared", Options::default(), |_| true).await
    }

    /// As [`shared`](Self::shared), with kube-scheduler and simulated nodes: `node-0` to `node-2`, and `gpu`, which has
    /// the label `processor: gpu`, one `nvidia.com/gpu`, and more `example.com/accelerator` than tests that run side by side
    /// take. Only who needs pods that run pays for it.
    pub async fn shared_with_nodes() -> Result<&'static Self> {
        static SHARED: OnceCell<(Cluster, Option<ControlPlane>)> = OnceCell::const_new();
        let gpu = Node::new("gpu").label("processor", "gpu").resource("nvidia.com/gpu", "1");
        let gpu = gpu.resource("example.com/accelerator", "100");
        let nodes = (0..3).map(|index| Node::new(format!("node-{index}"))).chain([gpu]);
        let options = nodes.fold(Options::default(), Options::node);
        Self::once(&SHARED, "nodes", options, |state| state.pids.contains_key("kwok")).await
    }

    async fn once(
        cell: &'static OnceCell<(Self, Option<ControlPlane>)>,
        name: &str,
        options: Options,
        suits: impl Fn(&State) -> bool,
    ) -> Result<&'static Self> {
        let (cluster, _) = cell
            .get_or_try_init(async || {
                let given = State::from_environment().transpose().context("the state of the given control plane")?;
                let given = given.filter(suits).and_then(|state| {
                    Some(Self { audit: state.logs.get(AUDIT)?.clone(), kubeconfig: state.kubeconfig })
                });
                let (cluster, control_plane) = match given {
                    Some(cluster) => (cluster, None),
                    None => {
                        let own = OwnCluster::start(name, options).await?;
                        (own.cluster, Some(own.control_plane))
                    }
                };
                cluster.install_ring().await?;
                anyhow::Ok((cluster, control_plane))
            })
            .await?;
        Ok(cluster)
    }

    /// A control plane that runs already and keeps no audit log.
    pub fn running(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), audit: PathBuf::new() }
    }

    /// A client with the administrator's rights, for the calling test's runtime.
    pub async fn client(&self) -> Result<Client> {
        Ok(kubernetes_client(&self.kubeconfig).await?)
    }

    /// Where the API server listens.
    pub fn server(&self) -> Result<SocketAddr> {
        server_of(&self.kubeconfig)
    }

    /// Kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What the API server logs from now on.
    pub fn audit(&self) -> Audit {
        Audit::from_now(&self.audit)
    }

    /// Installs the ring's resource.
    pub async fn install_ring(&self) -> Result<()> {
        self.install(RING_CRD).await
    }

    /// Creates or updates a CustomResourceDefinition and waits until it serves.
    pub async fn install(&self, crd: &str) -> Result<()> {
        let crd: CustomResourceDefinition = serde_saphyr::from_str(crd).context("a CustomResourceDefinition")?;
        let (api, name): (Api<CustomResourceDefinition>, _) = (Api::all(self.client().await?), crd.name_any());
        api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&crd)).await?;
        let established = |crd: Option<&CustomResourceDefinition>| {
            let conditions = crd.and_then(|crd| crd.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
        };
        until_object(&api, &name, "the CustomResourceDefinition is established", established).await?;
        Ok(())
    }
}

impl OwnCluster {
    /// Starts a control plane that ends with this value. `name` is that of its folder of logs.
    pub async fn start(name: &str, options: Options) -> Result<Self> {
        let logs = logs_directory()?.join(name);
        std::fs::create_dir_all(&logs)?;
        let (policy, audit) = (logs.join("audit-policy.json"), logs.join("audit.log"));
        ensure!(!audit.exists(), "the control plane `{name}` was started twice");
        std::fs::write(&policy, audit::POLICY)?;
        std::fs::write(&audit, "")?;
        let options = options
            .log_directory(logs)
            .apiserver_arg(format!("--audit-policy-file={}", policy.display()))
            .apiserver_arg(format!("--audit-log-path={}", audit.display()));
        let control_plane = ControlPlane::start(options).await?;
        let cluster = Cluster { kubeconfig: control_plane.kubeconfig(), audit };
        Ok(Self { control_plane, cluster })
    }

    /// As [`start`](Self::start), without an audit log: it would take part of the time that is to be measured.
    pub async fn start_without_audit(name: &str, options: Options) -> Result<Self> {
        let logs = logs_directory()?.join(name);
        std::fs::create_dir_all(&logs)?;
        let audit = logs.join("audit.log");
        let control_plane = ControlPlane::start(options.log_directory(logs)).await?;
        let cluster = Cluster { kubeconfig: control_plane.kubeconfig(), audit };
        Ok(Self { control_plane, cluster })
    }

    /// How to reach it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}
