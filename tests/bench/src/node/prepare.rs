//! What is deployed: pods, and what has to be in the cluster before them.

use std::os::unix::fs::chown;
use std::path::Path;

use harness::ring::{GROUP, RESOURCE, guest};
use harness::{Context as _, Result, component};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::stage::Course;

/// By which our pods are found.
pub(super) const LABEL: &str = "bench.wasm-operator.dev/pod";
const MANAGER: &str = "bench";
/// The project's own Deployment; a pod is made of its template.
const DEPLOYMENT: &str = include_str!("../../../../devel/deploy/deployment.yaml");
/// What `devel/node/bench` has given to the node.
const GO_IMAGE: &str = "localhost/ring-peer-go:bench";
const RUST_IMAGE: &str = "localhost/ring-peer-rust:bench";
const HOST_IMAGE: &str = "localhost/wasm-operator-ring:bench";
/// Where that image has the component.
const COMPONENT: &str = "/guests/ring.wasm";
/// The user of all images.
const USER: u32 = 65_532;
/// A cache that outlives its pod, in the node's directory.
const KEPT_CACHE: &str = "/var/lib/wasm-operator-node/kept-cache";

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deployed {
    /// A pod for each controller, Go with controller-runtime.
    Go,
    /// A pod for each controller, Rust with kube-rs.
    KubeRs,
    /// One pod of wasm-operator with a guest for each controller.
    WasmOperator,
}

/// The pods' memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// None for peers, that of the project's Deployment for ours, whose cache of compiled components is empty at first.
    AsDeployed,
    /// None, with a cache that is kept.
    Unlimited,
    /// So many MiB for each pod, with a cache that is kept: the compiler needs more than the host.
    Limit(u64),
}

impl Deployed {
    /// In the order of the results.
    pub(crate) const ALL: [Self; 3] = [Self::Go, Self::KubeRs, Self::WasmOperator];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Go => "Go controller-runtime, one pod each",
            Self::KubeRs => "kube-rs, one pod each",
            Self::WasmOperator => "wasm-operator, one pod",
        }
    }

    /// Pods for so many controllers.
    pub(crate) fn pods(self, controllers: usize) -> usize {
        match self {
            Self::Go | Self::KubeRs => controllers,
            Self::WasmOperator => 1,
        }
    }
}

/// Pods that are still to be created, in this namespace.
pub(super) struct Prepared {
    pub(super) namespace: String,
    pub(super) pods: Vec<Pod>,
}

/// Does everything that comes before the pods.
pub(super) async fn prepare(stage: &Stage, course: &Course, variant: Deployed, memory: Memory) -> Result<Prepared> {
    match variant {
        Deployed::Go => peers(stage, course, GO_IMAGE, memory).await,
        Deployed::KubeRs => peers(stage, course, RUST_IMAGE, memory).await,
        Deployed::WasmOperator => host(stage, course, memory).await,
    }
}

async fn peers(stage: &Stage, course: &Course, image: &str, memory: Memory) -> Result<Prepared> {
    const ACCOUNT: &str = "peer";
    let namespace = stage.space().namespace("peers").await?;
    let (client, name) = (stage.client(), "bench-node-peer");
    apply(&Api::<ServiceAccount>::namespaced(client.clone(), &namespace), ACCOUNT, json!({})).await?;
    let verbs = ["get", "list", "watch", "create", "update"];
    let rules = json!({ "rules": [{ "apiGroups": [GROUP], "resources": [RESOURCE], "verbs": verbs }] });
    apply(&Api::<ClusterRole>::all(client.clone()), name, rules).await?;
    let binding = json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace }],
    });
    apply(&Api::<ClusterRoleBinding>::all(client), name, binding).await?;
    let pods = course.pairs().enumerate().map(|(index, (from, to))| {
        let mut spec = json!({
            "serviceAccountName": ACCOUNT,
            "securityContext": { "runAsNonRoot": true, "runAsUser": USER, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "controller",
                "env": [{ "name": "IN_NAMESPACE", "value": from }, { "name": "OUT_NAMESPACE", "value": to }],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        });
        limit(&mut spec, memory)?;
        pod(&format!("peer-{index}"), image, spec)
    });
    Ok(Prepared { namespace, pods: pods.collect::<Result<_>>()? })
}

async fn host(stage: &Stage, course: &Course, memory: Memory) -> Result<Prepared> {
    let guests = course.pairs().enumerate().map(|(index, (from, to))| guest(&format!("ring-{index}"), from, to));
    // Its account with the rights that `wasm-operator rbac` prints; the process itself is not started here.
    let host = stage.space().host().watching_everywhere().guests(guests).prepare().await?;
    let namespace = host.namespace().to_owned();
    let local = component("ring")?.display().to_string();
    let config = std::fs::read_to_string(host.config())?.replace(&local, COMPONENT);
    let config_maps: Api<ConfigMap> = Api::namespaced(stage.client(), &namespace);
    apply(&config_maps, "wasm-operator", json!({ "data": { "wasm_config.yaml": config } })).await?;
    let deployment: Value = serde_saphyr::from_str(DEPLOYMENT).context("devel/deploy/deployment.yaml")?;
    let spec = deployment.pointer("/spec/template/spec").context("a Deployment without a pod")?.clone();
    let spec = host_pod(spec, memory)?;
    Ok(Prepared { namespace, pods: [pod("wasm-operator", HOST_IMAGE, spec)?].into() })
}

/// The Deployment's pod with the guests in its own image, because containerd has image volumes only since 2.1.
fn host_pod(mut spec: Value, memory: Memory) -> Result<Value> {
    for list in ["/volumes", "/containers/0/volumeMounts"] {
        let list = spec.pointer_mut(list).and_then(Value::as_array_mut).context("a pod without volumes")?;
        list.retain(|volume| volume.get("name") != Some(&"guests".into()));
        if memory != Memory::AsDeployed {
            let cache = list.iter_mut().find(|volume| volume.pointer("/emptyDir").is_some());
            if let Some(cache) = cache {
                *cache = json!({ "name": "cache", "hostPath": { "path": KEPT_CACHE, "type": "Directory" } });
            }
        }
    }
    if memory != Memory::AsDeployed {
        limit(&mut spec, memory)?;
    }
    Ok(spec)
}

/// For the pods of a host that keeps its cache.
pub(super) fn make_kept_cache() -> Result<()> {
    std::fs::create_dir_all(KEPT_CACHE)?;
    chown(Path::new(KEPT_CACHE), Some(USER), Some(USER)).context("cannot give the cache to the host's user")?;
    Ok(())
}

fn limit(spec: &mut Value, memory: Memory) -> Result<()> {
    let container =
        spec.pointer_mut("/containers/0").and_then(Value::as_object_mut).context("a pod without a container")?;
    container.remove("resources");
    if let Memory::Limit(mebibytes) = memory {
        container.insert("resources".to_owned(), json!({ "limits": { "memory": format!("{mebibytes}Mi") } }));
    }
    Ok(())
}

fn pod(name: &str, image: &str, mut spec: Value) -> Result<Pod> {
    let container =
        spec.pointer_mut("/containers/0").and_then(Value::as_object_mut).context("a pod without a container")?;
    container.insert("image".to_owned(), image.into());
    container.insert("imagePullPolicy".to_owned(), "Never".into());
    let fields = spec.as_object_mut().context("a pod without fields")?;
    // The node has no DNS.
    fields.insert("dnsPolicy".to_owned(), "Default".into());
    let pod = json!({ "metadata": { "name": name, "labels": { LABEL: "yes" } }, "spec": spec });
    serde_json::from_value(pod).with_context(|| format!("the pod `{name}`"))
}

async fn apply<K>(api: &Api<K>, name: &str, mut object: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
        fields.insert("metadata".to_owned(), json!({ "name": name }));
    }
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(memory: Memory) -> Value {
        let deployment: Value = serde_saphyr::from_str(DEPLOYMENT).unwrap();
        host_pod(deployment.pointer("/spec/template/spec").unwrap().clone(), memory).unwrap()
    }

    #[test]
    fn ours_is_the_pod_of_the_deployment() {
        let spec = deployed(Memory::AsDeployed);
        assert_eq!(spec.pointer("/containers/0/resources/limits/memory"), Some(&"512Mi".into()));
        assert!(spec.pointer("/containers/0/livenessProbe").is_some());
        let volumes = spec["volumes"].as_array().unwrap();
        assert_eq!(volumes.iter().map(|volume| &volume["name"]).collect::<Vec<_>>(), ["config", "cache"]);
        assert!(volumes[1].get("emptyDir").is_some());
    }

    #[test]
    fn a_limit_replaces_that_of_the_deployment_and_the_cache_is_kept() {
        let spec = deployed(Memory::Limit(7));
        assert_eq!(spec["containers"][0]["resources"], json!({ "limits": { "memory": "7Mi" } }));
        assert_eq!(spec["volumes"][1]["hostPath"]["path"], KEPT_CACHE);
        assert!(deployed(Memory::Unlimited)["containers"][0].get("resources").is_none());
    }

    #[test]
    fn a_pod_has_what_the_node_needs() {
        let pod = pod("a", GO_IMAGE, json!({ "containers": [{ "name": "c" }] })).unwrap();
        let spec = pod.spec.unwrap();
        assert_eq!(spec.dns_policy.as_deref(), Some("Default"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Never"));
        assert!(super::pod("a", GO_IMAGE, json!({})).is_err());
    }
}
