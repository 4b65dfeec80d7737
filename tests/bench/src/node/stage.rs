//! The node, its namespaces, and the nonces that were sent.

use std::cell::Cell;
use std::path::Path;

use harness::ring::{self, objects};
use harness::{Cluster, Context as _, Result, Space, eventually};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use wasm_operator_devel::State;

use crate::lap::Eye;
use crate::stage::{Course, Shape};

/// Where `devel/node/up` notes the processes that it started.
const PROCESSES: &str = "/var/lib/wasm-operator-node/pid";

/// What all variants run on.
pub(crate) struct Stage {
    space: Space,
    state: State,
    nonce: Cell<i64>,
}

/// Versions, as the node reports them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Versions {
    /// The kubelet, and with it the control plane.
    pub(crate) kubernetes: String,
    /// Such as `containerd://1.6.20`.
    pub(crate) runtime: String,
}

impl Stage {
    /// The node that `devel/node/up` made.
    pub(crate) async fn from_environment() -> Result<Self> {
        let state = State::from_environment().context("no node: run `devel/bench --node`, which makes one")??;
        let cluster = Cluster::running(&state.kubeconfig);
        cluster.install_ring().await?;
        let stage = Self { space: Space::new("bench-node", &cluster).await?, state, nonce: Cell::new(0) };
        // A new kind is established a moment before its storage is ready.
        let served = async || Ok(stage.objects().list_metadata(&ListParams::default().limit(1)).await?);
        eventually("the ring's resource is served", served).await?;
        Ok(stage)
    }

    /// Namespaces and configurations are made in here.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// A client with the administrator's rights.
    pub(crate) fn client(&self) -> Client {
        self.space.client()
    }

    /// The processes that every variant needs: control plane, kubelet, containerd.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids: Vec<u32> = self.state.pids.values().copied().collect();
        for entry in std::fs::read_dir(Path::new(PROCESSES)).context("the processes of the node")? {
            pids.push(std::fs::read_to_string(entry?.path())?.trim().parse()?);
        }
        Ok(pids)
    }

    /// What runs the pods.
    pub(crate) async fn versions(&self) -> Result<Versions> {
        let nodes: Api<Node> = Api::all(self.client());
        let node = nodes.list(&ListParams::default()).await?.items.into_iter().next().context("no node")?;
        let info = node.status.and_then(|status| status.node_info).context("a node without a status")?;
        Ok(Versions { kubernetes: info.kubelet_version, runtime: info.container_runtime_version })
    }

    /// Makes the namespaces of a ring, if need be, and removes what an earlier ring left in any.
    pub(crate) async fn course(&self, controllers: usize) -> Result<Course> {
        let course = Course::new(Shape::Ring, self.space.name_of("ring-"), controllers);
        for index in 0..course.namespaces.len() {
            self.space.namespace(&format!("ring-{index}")).await?;
        }
        for object in self.objects().list(&ListParams::default()).await?.items {
            let namespace = object.namespace().context("an object without a namespace")?;
            objects(&self.space, &namespace).delete(&object.name_any(), &DeleteParams::default()).await?;
        }
        Ok(course)
    }

    /// Opens the driver's watch.
    pub(crate) async fn watch(&self) -> Result<Eye> {
        Eye::open(self.objects()).await
    }

    /// Writes a new nonce into the first namespace, and returns it.
    pub(crate) async fn send(&self, course: &Course) -> Result<i64> {
        let nonce = self.nonce.get() + 1;
        self.nonce.set(nonce);
        let first = course.namespaces.first().context("a course without namespaces")?;
        ring::write(&self.space, first, nonce).await?;
        Ok(nonce)
    }

    fn objects(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ring::GROUP, "v1", "TestResource"));
        Api::all_with(self.client(), &resource)
    }
}
