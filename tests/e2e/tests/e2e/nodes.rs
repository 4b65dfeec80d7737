//! The stage for guests that run pods: what pods do on simulated nodes, with the real scheduler and controllers.

use harness::{Context as _, Result, Space, ensure, eventually, test_with_nodes, until_object};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

/// Pods and Jobs of one test.
struct Pods<'a> {
    space: &'a Space,
    namespace: String,
    pods: Api<Pod>,
    jobs: Api<Job>,
}

impl<'a> Pods<'a> {
    async fn new(space: &'a Space) -> Result<Self> {
        let namespace = space.namespace("a").await?;
        let (pods, jobs) = (Api::namespaced(space.client(), &namespace), Api::namespaced(space.client(), &namespace));
        Ok(Self { space, namespace, pods, jobs })
    }

    async fn pod(&self, name: &str, spec: Value) -> Result<Pod> {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
        Ok(self.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }

    /// A Job of one container, which is not tried again.
    async fn job(&self, name: &str, image: &str) -> Result<Job> {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
            "spec": { "backoffLimit": 0, "template": { "spec": containers(&[("main", image)]) } },
        });
        Ok(self.jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?)
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let found = until_object(&self.pods, name, what, |pod: Option<&Pod>| pod.is_some_and(&wanted)).await?;
        found.context("a pod")
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Result<Pod> {
        self.until(name, &format!("`{name}` is {phase}"), |pod| phase_of(pod) == phase).await
    }

    async fn until_condition(&self, job: &str, condition: &str) -> Result<Job> {
        let has = |job: Option<&Job>| {
            let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == condition && one.status == "True"))
        };
        until_object(&self.jobs, job, &format!("`{job}` is {condition}"), has).await?.context("a Job")
    }

    async fn annotate(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let change = json!({ "metadata": { "annotations": { (key): value } } });
        self.pods.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    }
}

fn containers(all: &[(&str, &str)]) -> Value {
    let all: Vec<Value> = all.iter().map(|(name, image)| json!({ "name": name, "image": image })).collect();
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": all })
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_true(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == condition && one.status == "True"))
}

/// The state of a container as JSON, such as `{"terminated": {...}}`.
fn state_of(pod: &Pod, container: &str) -> Value {
    let pod = serde_json::to_value(pod).unwrap_or_default();
    let all = pod.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
    let found = all.iter().find(|status| status.get("name").is_some_and(|name| name == container));
    found.and_then(|status| status.get("state").cloned()).unwrap_or_default()
}

#[test]
fn an_ordinary_image_runs_until_the_pod_is_deleted() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.pod("one", containers(&[("main", "busybox"), ("side", "i:1")])).await?;
        let pod = pods.until("one", "it is ready", |pod| is_true(pod, "Ready")).await?;
        let status = pod.status.clone().context("a status")?;
        assert_eq!(status.phase.as_deref(), Some("Running"));
        ensure!(status.pod_ip.is_some() && status.host_ip.as_deref() == Some("127.0.0.1"), "{status:?}");
        ensure!(state_of(&pod, "side").get("running").is_some(), "{status:?}");

        // Like a kubelet: finalizers are left to who set them.
        let finalizer = json!({ "metadata": { "finalizers": ["example.org/wait"] } });
        pods.pods.patch("one", &PatchParams::default(), &Patch::Merge(&finalizer)).await?;
        pods.pods.delete("one", &DeleteParams::default()).await?;
        let ended = pods.until("one", "its containers have ended", |pod| phase_of(pod) == "Failed").await?;
        assert_eq!(state_of(&ended, "main")["terminated"]["exitCode"], 143);
        ensure!(ended.metadata.deletion_timestamp.is_some() && ended.finalizers() == ["example.org/wait"]);
        let none = json!({ "metadata": { "finalizers": null } });
        pods.pods.patch("one", &PatchParams::default(), &Patch::Merge(&none)).await?;
        until_object(&pods.pods, "one", "it is gone", |pod| pod.is_none()).await?;
        Ok(())
    })
}

#[test]
fn jobs_complete_and_fail_as_their_images_say() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.job("good", "simulated.invalid/completes").await?;
        pods.job("bad", "simulated.invalid/fails").await?;
        let bad = pods.until_condition("bad", "Failed").await?;
        assert_eq!(bad.status.and_then(|status| status.failed), Some(1));
        let good = pods.until_condition("good", "Complete").await?;
        assert_eq!(good.status.and_then(|status| status.succeeded), Some(1));
        let failed = pods.pods.list(&ListParams::default().labels("job-name=bad")).await?;
        let terminated = state_of(failed.items.first().context("the pod of the failed Job")?, "main");
        assert_eq!(
            (&terminated["terminated"]["exitCode"], &terminated["terminated"]["reason"]),
            (&1.into(), &"Error".into())
        );
        Ok(())
    })
}

#[test]
fn a_running_container_ends_when_its_pod_is_told_so() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.pod("one", containers(&[("action", "i:1"), ("conf", "i:2")])).await?;
        pods.until("one", "it is ready", |pod| is_true(pod, "Ready")).await?;
        pods.annotate("one", "simulated.invalid/action", "fails").await?;
        let half = pods.until("one", "one container has ended", |pod| !is_true(pod, "Ready")).await?;
        assert_eq!(phase_of(&half), "Running", "the other container runs");
        assert_eq!(state_of(&half, "action")["terminated"]["exitCode"], 1);
        ensure!(state_of(&half, "conf").get("running").is_some());
        pods.annotate("one", "simulated.invalid/conf", "completes").await?;
        let ended = pods.until_phase("one", "Failed").await?;
        assert_eq!(state_of(&ended, "conf")["terminated"]["exitCode"], 0);
        Ok(())
    })
}

#[test]
fn an_image_that_cannot_be_pulled_leaves_the_pod_pending_with_the_reason() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.pod("one", containers(&[("main", "simulated.invalid/cannot-be-pulled"), ("side", "i:1")])).await?;
        let pod =
            pods.until("one", "the pull has failed", |pod| state_of(pod, "main").get("waiting").is_some()).await?;
        assert_eq!((phase_of(&pod), is_true(&pod, "Ready")), ("Pending", false));
        assert_eq!(state_of(&pod, "main")["waiting"]["reason"], "ImagePullBackOff");
        Ok(())
    })
}

#[test]
fn an_evicted_pod_says_so_like_a_kubelet() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.pod("one", containers(&[("main", "simulated.invalid/is-evicted:100ms"), ("side", "i:1")])).await?;
        let pod = pods.until_phase("one", "Failed").await?;
        ensure!(is_true(&pod, "DisruptionTarget"), "{pod:?}");
        assert_eq!(state_of(&pod, "side")["terminated"]["exitCode"], 137);
        assert_eq!(pod.status.and_then(|status| status.reason).as_deref(), Some("Evicted"));
        Ok(())
    })
}

#[test]
fn slow_and_never_ready_pods_are_told_from_ready_ones() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        pods.pod("never", containers(&[("main", "simulated.invalid/starts-slowly:1h")])).await?;
        pods.pod("unready", containers(&[("main", "simulated.invalid/is-not-ready")])).await?;
        pods.pod("soon", containers(&[("main", "simulated.invalid/starts-slowly:300ms")])).await?;
        pods.until("soon", "it is ready", |pod| is_true(pod, "Ready")).await?;
        let unready = pods.until_phase("unready", "Running").await?;
        ensure!(!is_true(&unready, "Ready"));
        let never = pods.until("never", "it is scheduled", |pod| is_true(pod, "PodScheduled")).await?;
        assert_eq!(phase_of(&never), "Pending");
        Ok(())
    })
}

#[test]
fn a_container_that_may_restart_backs_off() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        let mut spec = containers(&[("main", "simulated.invalid/fails:100ms")]);
        spec["restartPolicy"] = "Always".into();
        pods.pod("one", spec).await?;
        let pod = pods.until("one", "it backs off", |pod| state_of(pod, "main").get("waiting").is_some()).await?;
        assert_eq!(state_of(&pod, "main")["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(phase_of(&pod), "Running");
        Ok(())
    })
}

#[test]
fn one_gpu_is_given_to_one_pod() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        let mut spec = containers(&[("main", "i:1")]);
        spec["nodeSelector"] = json!({ "processor": "gpu" });
        spec["containers"][0]["resources"] = json!({ "limits": { "nvidia.com/gpu": "1" } });
        pods.pod("first", spec.clone()).await?;
        let first = pods.until("first", "it is ready", |pod| is_true(pod, "Ready")).await?;
        assert_eq!(first.spec.and_then(|spec| spec.node_name).as_deref(), Some("gpu"));
        pods.pod("second", spec).await?;
        let refused = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.reason.as_deref() == Some("Unschedulable")))
        };
        pods.until("second", "it cannot be scheduled", refused).await?;
        pods.pods.delete("first", &DeleteParams::default()).await?;
        pods.until("second", "it is ready", |pod| is_true(pod, "Ready")).await?;
        Ok(())
    })
}

#[test]
fn logs_are_read_through_the_api_server() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        space.set_container_log(&pods.namespace, "main", &["one", "two", "three"]).await?;
        pods.pod("one", containers(&[("main", "i:1"), ("silent", "i:2")])).await?;
        pods.until("one", "it is ready", |pod| is_true(pod, "Ready")).await?;
        let params = |container: &str| LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        // kwok learns of the log by a watch of its own.
        let all = eventually("the log is there", async || Ok(pods.pods.logs("one", &params("main")).await?)).await?;
        assert_eq!(all, "one\ntwo\nthree\n");
        let tail = LogParams { tail_lines: Some(2), timestamps: true, ..params("main") };
        let tail = pods.pods.logs("one", &tail).await?;
        let lines: Vec<&str> = tail.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
        assert_eq!(lines, ["two", "three"]);
        let refused = pods.pods.logs("one", &params("silent")).await;
        ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 400), "{refused:?}");
        Ok(())
    })
}

#[test]
fn services_have_ports_and_endpoints() -> Result<()> {
    test_with_nodes(async |space| {
        let pods = Pods::new(space).await?;
        let services: Api<Service> = Api::namespaced(space.client(), &pods.namespace);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "one" },
            "spec": { "type": "NodePort", "selector": { "app": "one" }, "ports": [{ "name": "a", "port": 5000 }] },
        });
        let service = services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let port = service.spec.and_then(|spec| spec.ports?.first()?.node_port).context("a node port")?;
        ensure!((30_000..32_768).contains(&port), "{port}");
        let pod = pods.pod("one", containers(&[("main", "i:1")])).await?;
        let labels = json!({ "metadata": { "labels": { "app": "one" } } });
        pods.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&labels)).await?;
        let ready = pods.until("one", "it is ready", |pod| is_true(pod, "Ready")).await?;
        let ip = ready.status.and_then(|status| status.pod_ip).context("an address")?;
        use k8s_openapi::api::discovery::v1::EndpointSlice;
        let slices: Api<EndpointSlice> = Api::namespaced(pods.space.client(), &pods.namespace);
        eventually("the pod is an endpoint of the Service", async || {
            let all = slices.list(&ListParams::default().labels("kubernetes.io/service-name=one")).await?;
            let found = all
                .iter()
                .flat_map(|slice| slice.endpoints.iter().flatten())
                .any(|endpoint| endpoint.addresses.contains(&ip));
            ensure!(found, "{all:?}");
            Ok(())
        })
        .await
    })
}
