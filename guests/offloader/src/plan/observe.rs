//! What Jobs, pods and the Service say, as status.

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;
use wasm_operator_sdk::conditions;

use super::Observed;
use super::begin::{CONTAINER, serving};
use crate::api::{NetworkStatus, OffloadedActionStatus, Phase, ServiceType, condition, reason};
use crate::{children, ids, labels};

/// What the kubelet says of an image that it cannot get.
const IMAGE_REASONS: [&str; 5] =
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"];

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// Well.
    Succeeded,
    /// Badly.
    Failed {
        /// A reason of `Failed`.
        reason: &'static str,
        /// The Job controller's words.
        message: String,
    },
}

/// The pod of a Job that counts: a ready one, else the newest that is not ending.
pub(super) fn pod_of<'a>(seen: &'a Observed, job_id: &str) -> Option<&'a Pod> {
    let pods = seen.pods.iter().filter(|pod| pod.labels().get(labels::JOB).is_some_and(|id| id == job_id));
    pods.max_by_key(|pod| {
        let alive = pod.metadata.deletion_timestamp.is_none();
        (is_ready(pod), alive, pod.creation_timestamp().map(|time| time.0), pod.name_any())
    })
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

fn state(pod: &Pod) -> Option<&ContainerState> {
    container(pod)?.state.as_ref()
}

fn pod_condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|one| one.type_ == type_)
}

/// Whether the action's container is ready: the pod's phase says less, since a side container can run alone.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && container(pod).is_some_and(|status| status.ready)
}

/// The image that cannot be pulled, in the kubelet's words.
fn image_trouble(pod: &Pod) -> Option<String> {
    let waiting = state(pod)?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| IMAGE_REASONS.contains(reason))?;
    let message = waiting.message.clone().unwrap_or_default();
    Some(format!("{reason}: {message}"))
}

fn schedule_trouble(pod: &Pod) -> Option<(&'static str, String)> {
    let refused = pod_condition(pod, "PodScheduled").filter(|one| one.status == "False")?;
    let message = refused.message.clone().unwrap_or_default();
    // The scheduler's words are not an interface: what is not recognised is still reported in full.
    let reason = if message.contains("anti-affinity") {
        reason::ANTI_AFFINITY_UNSATISFIED
    } else if message.contains("node affinity/selector") || message.contains("node selector") {
        reason::NODE_SELECTOR_UNSATISFIED
    } else if message.contains("Insufficient") {
        reason::INSUFFICIENT_RESOURCES
    } else {
        reason::UNSCHEDULABLE
    };
    Some((reason, message))
}

/// What keeps a pod from becoming ready.
pub(super) fn trouble(pod: &Pod) -> Option<String> {
    image_trouble(pod).or_else(|| schedule_trouble(pod).map(|(_, message)| message))
}

/// Whether the pod was ended by the cluster and not by the action.
fn eviction(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(target) = pod_condition(pod, "DisruptionTarget").filter(|one| one.status == "True") {
        return Some(target.message.clone().or_else(|| target.reason.clone()).unwrap_or_default());
    }
    let evicted = status.reason.as_deref() == Some("Evicted");
    evicted.then(|| status.message.clone().unwrap_or_default())
}

/// How the Job ended; none: it has not.
pub(super) fn ending(job: &Job) -> Option<Ending> {
    let all = job.status.as_ref()?.conditions.as_ref()?;
    let holds = |type_: &str| all.iter().find(|one: &&JobCondition| one.type_ == type_ && one.status == "True");
    if holds("Complete").is_some() {
        return Some(Ending::Succeeded);
    }
    let failed = holds("Failed")?;
    let reason = match failed.reason.as_deref() {
        Some("DeadlineExceeded") => reason::DEADLINE_EXCEEDED,
        _ => reason::BACKOFF_LIMIT_EXCEEDED,
    };
    Some(Ending::Failed { reason, message: failed.message.clone().unwrap_or_default() })
}

/// The pod whose output says how a Job ended.
pub(super) fn ended_pod(seen: &Observed, job_id: &str) -> Option<String> {
    // A container that never started has no output.
    let has_run = |pod: &&Pod| state(pod).is_some_and(|state| state.waiting.is_none());
    pod_of(seen, job_id).filter(has_run).map(ResourceExt::name_any)
}

/// Adds why the action did not even start to how its Job ended.
pub(super) fn explain(seen: &Observed, job_id: &str, ending: Ending) -> Ending {
    match (ending, pod_of(seen, job_id).and_then(image_trouble)) {
        (Ending::Failed { message, .. }, Some(image)) => {
            Ending::Failed { reason: reason::IMAGE_PULL, message: format!("{image} ({message})") }
        }
        (Ending::Failed { reason, message }, None) => {
            let status = seen.status();
            let was_image = conditions::get(&status.conditions, condition::FAILED)
                .filter(|known| known.reason == reason::IMAGE_PULL);
            match was_image {
                // The deadline took the pod, and its message, away.
                Some(known) => {
                    Ending::Failed { reason: reason::IMAGE_PULL, message: format!("{} ({message})", known.message) }
                }
                None => Ending::Failed { reason, message },
            }
        }
        (ending, _) => ending,
    }
}

/// The status of a flow whose action has not ended, as its objects show it now.
pub(super) fn observe(seen: &Observed) -> OffloadedActionStatus {
    let mut status = seen.status();
    let serving_id = serving(&status).cloned().unwrap_or_default();
    let pod = pod_of(seen, &serving_id);
    let job = seen.jobs.get(&serving_id);
    status.start_time = job.and_then(|job| job.status.as_ref()?.start_time.clone());
    show_pod(&mut status, pod);
    show_network(seen, &mut status, pod);
    judge_pod(seen, &mut status, pod);
    show_service(seen, &mut status);
    let ready = pod.is_some_and(is_ready);
    status.phase = match (seen.action.spec.suspend, status.previous_job_id.is_some(), ready) {
        (true, ..) => Phase::Pending,
        (false, true, _) => Phase::Reconfiguring,
        (false, false, true) => Phase::Running,
        (false, false, false) => Phase::Starting,
    };
    status
}

fn show_pod(status: &mut OffloadedActionStatus, pod: Option<&Pod>) {
    let of_status = pod.and_then(|pod| pod.status.as_ref());
    status.pod_name = pod.map(ResourceExt::name_any);
    status.node_name = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    status.pod_ip = of_status.and_then(|status| status.pod_ip.clone());
    status.host_ip = of_status.and_then(|status| status.host_ip.clone());
    status.pod_phase = of_status.and_then(|status| status.phase.clone());
}

fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> = status.pod_ips.iter().flatten().map(|one| one.ip.clone()).collect();
    if all.is_empty() { status.pod_ip.iter().cloned().collect() } else { all }
}

/// The node whose networks are not known yet.
pub(super) fn unknown_network(seen: &Observed) -> Option<String> {
    let status = seen.status();
    let pod = pod_of(seen, serving(&status)?)?;
    let addresses = addresses(pod);
    let known = status.network.as_ref().is_some_and(|network| network.pod_ips == addresses);
    let node = pod.spec.as_ref()?.node_name.clone()?;
    (!addresses.is_empty() && !known && seen.network.is_none()).then_some(node)
}

fn show_network(seen: &Observed, status: &mut OffloadedActionStatus, pod: Option<&Pod>) {
    let Some(pod) = pod else { return };
    let pod_ips = addresses(pod);
    if pod_ips.is_empty() {
        return;
    }
    let mut network = status.network.take().filter(|known| known.pod_ips == pod_ips).unwrap_or_default();
    if let Some(found) = &seen.network {
        network.pod_cidrs.clone_from(&found.pod_cidrs);
        network.service_cidrs.clone_from(&found.service_cidrs);
    }
    let policy = seen.action.spec.network_policy.as_ref().map(|_| ids::flow_name(&ids::flow_id(&seen.action)));
    status.network = Some(NetworkStatus { pod_ips, network_policies: policy.into_iter().collect(), ..network });
}

fn judge_pod(seen: &Observed, status: &mut OffloadedActionStatus, pod: Option<&Pod>) {
    let ready = |status: &mut OffloadedActionStatus, holds: bool, reason: &str, message: &str| {
        seen.set(status, condition::READY, holds, reason, message);
    };
    let Some(pod) = pod else {
        conditions::remove(&mut status.conditions, condition::SCHEDULED);
        match seen.action.spec.suspend {
            true => ready(status, false, reason::SUSPENDED, "`spec.suspend` is set"),
            false => ready(status, false, reason::STARTING, "there is no pod yet"),
        }
        return;
    };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    match (schedule_trouble(pod), node) {
        (_, Some(node)) => {
            seen.set(status, condition::SCHEDULED, true, reason::SCHEDULED, &format!("on node `{node}`"));
        }
        (Some((why, message)), None) => seen.set(status, condition::SCHEDULED, false, why, &message),
        (None, None) => {}
    }
    let image = image_trouble(pod);
    match &image {
        Some(message) => seen.set(status, condition::FAILED, true, reason::IMAGE_PULL, message),
        // It got its image after all. A pod that is being deleted no longer says why it did not start.
        None if is_started(pod) && pod.metadata.deletion_timestamp.is_none() => {
            conditions::remove(&mut status.conditions, condition::FAILED);
        }
        None => {}
    }
    if is_ready(pod) {
        ready(status, true, reason::RUNNING, "the action runs");
    } else if let Some(message) = image {
        ready(status, false, reason::IMAGE_PULL, &message);
    } else if let Some(message) = eviction(pod) {
        ready(status, false, reason::EVICTED, &format!("the pod was evicted, another one takes its place: {message}"));
    } else if let Some(ended) = state(pod).and_then(|state| state.terminated.as_ref()) {
        let message = format!("the action ended with exit code {}", ended.exit_code);
        ready(status, false, reason::NOT_RUNNING, &message);
    } else {
        ready(status, false, reason::STARTING, "the action's container has not started yet");
    }
}

fn is_started(pod: &Pod) -> bool {
    state(pod).is_some_and(|state| state.waiting.is_none())
}

fn show_service(seen: &Observed, status: &mut OffloadedActionStatus) {
    let type_ = seen.action.spec.service.type_;
    if type_ == ServiceType::None {
        status.service = None;
        conditions::remove(&mut status.conditions, condition::SERVICE_READY);
        return;
    }
    let Some(service) = &seen.service else {
        status.service = None;
        return;
    };
    let shown = children::service_status(service);
    let is_there = match type_ {
        ServiceType::LoadBalancer => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            balancer.and_then(|balancer| balancer.ingress.as_ref()).is_some_and(|all| !all.is_empty())
        }
        ServiceType::NodePort => shown.ports.iter().all(|port| port.node_port.is_some()),
        ServiceType::ClusterIP | ServiceType::None => true,
    };
    match is_there {
        true => seen.set(status, condition::SERVICE_READY, true, reason::APPLIED, "the Service has all its ports"),
        false => {
            let message = "the Service has no address from outside yet";
            seen.set(status, condition::SERVICE_READY, false, reason::PENDING, message);
        }
    }
    status.service = Some(shown);
}
