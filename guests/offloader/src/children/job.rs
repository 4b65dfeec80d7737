//! The Job that runs an action.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapKeySelector, ConfigMapVolumeSource, Container, ContainerPort,
    EmptyDirVolumeSource, EnvVar, EnvVarSource, PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec,
    ResourceRequirements, SecretKeySelector, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::ObjectMeta;

use super::{Run, config, owned, secret};
use crate::api::AntiAffinity;
use crate::params::Place;
use crate::{ids, labels};

/// The container of the action.
pub const ACTION_CONTAINER: &str = "ow-action";
/// The side container for pushed configuration.
const CONF_CONTAINER: &str = "ow-conf";
/// Where the action finds its runtime configuration.
const CONF_PATH: &str = "/conf";
/// Where the side container finds the configuration to begin with.
const CONF_INITIAL_PATH: &str = "/conf-initial";
const CONF_VOLUME: &str = "conf-volume";
const CONF_INITIAL_VOLUME: &str = "conf-initial";
/// What starts an action in every image of OpenWhisk.
const COMMAND: &str = "/action/exec";
/// The variable through which parameters that are not in the Job become the action's argument.
const PARAMS_VARIABLE: &str = "__OW_OFFLOAD_PARAMS";
/// As the original: what is offloaded is ended at once.
const GRACE_SECONDS: i64 = 1;
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The Job. Its pod runs the action once; pods that were evicted are replaced without counting as failed.
#[must_use]
pub fn job(run: &Run<'_>) -> Job {
    let spec = &run.action.spec;
    let mut pod_labels = run.metadata(String::new());
    pod_labels.name = None;
    pod_labels.namespace = None;
    let template = PodTemplateSpec { metadata: Some(ObjectMeta { ..pod_labels }), spec: Some(pod(run)) };
    let evicted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    let ignore_evicted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![evicted]),
        on_exit_codes: None,
    };
    let job = Job {
        metadata: run.metadata(ids::job_name(&run.job_id)),
        spec: Some(JobSpec {
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(spec.backoff_limit),
            active_deadline_seconds: deadline(spec.time_limit_seconds),
            suspend: Some(spec.suspend),
            pod_failure_policy: Some(PodFailurePolicy { rules: vec![ignore_evicted] }),
            template,
            ..JobSpec::default()
        }),
        status: None,
    };
    owned(job, run.action)
}

/// `activeDeadlineSeconds` for a time limit.
pub(crate) fn deadline(time_limit_seconds: i64) -> Option<i64> {
    (time_limit_seconds > 0).then_some(time_limit_seconds)
}

fn pod(run: &Run<'_>) -> PodSpec {
    let placement = &run.placement;
    let has_selector = !placement.node_selector.is_empty();
    PodSpec {
        containers: vec![action_container(run)],
        init_containers: conf_container(run).map(|container| vec![container]),
        volumes: Some(volumes(run)),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        // What was offloaded is somebody else's program: it gets no way to the API server.
        automount_service_account_token: Some(false),
        service_account_name: run.settings.service_account.clone(),
        node_selector: has_selector.then(|| placement.node_selector.clone()),
        affinity: affinity(run),
        tolerations: tolerations(run),
        runtime_class_name: placement.runtime_class_name.clone(),
        ..PodSpec::default()
    }
}

fn action_container(run: &Run<'_>) -> Container {
    let placement = &run.placement;
    let argument = match run.params.place {
        Place::Job => escape(&run.params.text),
        // The kubelet puts the variable's value here, so the action gets what it would get otherwise.
        Place::ConfigMap | Place::Secret => format!("$({PARAMS_VARIABLE})"),
    };
    let capabilities = (!placement.capabilities.is_empty()).then(|| SecurityContext {
        capabilities: Some(Capabilities { add: Some(placement.capabilities.clone()), drop: None }),
        ..SecurityContext::default()
    });
    let resources = placement.resources.as_ref().map(|resources| ResourceRequirements {
        limits: (!resources.limits.is_empty()).then(|| resources.limits.clone()),
        requests: (!resources.requests.is_empty()).then(|| resources.requests.clone()),
        ..ResourceRequirements::default()
    });
    Container {
        name: ACTION_CONTAINER.to_owned(),
        image: Some(run.image.clone()),
        image_pull_policy: Some("Always".to_owned()),
        command: Some(vec![COMMAND.to_owned()]),
        args: Some(vec![argument]),
        env: Some(environment(run)),
        volume_mounts: Some(vec![mount(CONF_VOLUME, CONF_PATH)]),
        security_context: capabilities,
        resources,
        ..Container::default()
    }
}

/// The kubelet replaces `$(NAME)` in arguments; `$$` stands for one dollar sign.
fn escape(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn environment(run: &Run<'_>) -> Vec<EnvVar> {
    let plain =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(escape(value)), ..EnvVar::default() };
    let from = |name: &str, source: EnvVarSource| EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    };
    let from_secret = |name: &str, key: &str| {
        let selector = SecretKeySelector { name: ids::job_name(&run.job_id), key: key.to_owned(), optional: None };
        from(name, EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() })
    };
    let mut variables = Vec::new();
    if let Some(openwhisk) = &run.openwhisk {
        variables.push(plain("__OW_API_HOST", &openwhisk.api_host));
        variables.push(from_secret("__OW_API_KEY", secret::API_KEY));
    }
    variables.push(plain("__OW_NAMESPACE", "ow-offload"));
    variables.push(plain("__OW_ACTION_NAME", &run.name.to_string()));
    variables.push(plain("__OW_ACTIVATION_ID", &run.job_id));
    variables.push(plain("__OW_OFFLOADING_ACTIVATION_ID", &run.action.spec.activation_id));
    match run.params.place {
        Place::Job => {}
        Place::Secret => variables.push(from_secret(PARAMS_VARIABLE, secret::PARAMS)),
        Place::ConfigMap => {
            let selector = ConfigMapKeySelector {
                name: config::params_name(&run.job_id),
                key: config::PARAMS.to_owned(),
                optional: None,
            };
            variables.push(from(
                PARAMS_VARIABLE,
                EnvVarSource { config_map_key_ref: Some(selector), ..EnvVarSource::default() },
            ));
        }
    }
    variables
}

/// A sidecar in Kubernetes's sense: it ends when the action has ended.
fn conf_container(run: &Run<'_>) -> Option<Container> {
    let image = run.settings.conf_image.clone().filter(|_| run.action.spec.push_conf)?;
    let variable =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let mut mounts = vec![mount(CONF_VOLUME, CONF_PATH)];
    if run.action.spec.runtime_conf.is_some() {
        mounts.push(mount(CONF_INITIAL_VOLUME, CONF_INITIAL_PATH));
    }
    Some(Container {
        name: CONF_CONTAINER.to_owned(),
        image: Some(image),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        restart_policy: Some("Always".to_owned()),
        env: Some(vec![
            variable("CONF_DIRECTORY", CONF_PATH.to_owned()),
            variable("CONF_INITIAL", CONF_INITIAL_PATH.to_owned()),
            variable("CONF_PORT", run.settings.conf_port.to_string()),
        ]),
        ports: Some(vec![ContainerPort {
            container_port: run.settings.conf_port.into(),
            name: Some("conf".to_owned()),
            ..ContainerPort::default()
        }]),
        volume_mounts: Some(mounts),
        ..Container::default()
    })
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn volumes(run: &Run<'_>) -> Vec<Volume> {
    let spec = &run.action.spec;
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let from_conf = |name: &str| Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config::conf_name(&ids::flow_id(run.action)),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    match (spec.runtime_conf.is_some(), spec.push_conf) {
        (true, false) => vec![from_conf(CONF_VOLUME)],
        (true, true) => vec![empty(CONF_VOLUME), from_conf(CONF_INITIAL_VOLUME)],
        (false, _) => vec![empty(CONF_VOLUME)],
    }
}

fn tolerations(run: &Run<'_>) -> Option<Vec<Toleration>> {
    let all = &run.placement.tolerations;
    (!all.is_empty()).then(|| {
        all.iter()
            .map(|one| Toleration {
                key: one.key.clone(),
                operator: one.operator.clone(),
                value: one.value.clone(),
                effect: one.effect.clone(),
                toleration_seconds: one.toleration_seconds,
            })
            .collect()
    })
}

/// Keeps *other* flows away: a new pod of the same flow must be able to take over on the same node.
fn affinity(run: &Run<'_>) -> Option<Affinity> {
    let all = run.labels().labels;
    let selector_key = run.placement.node_selector.keys().next().map(|key| labels::selector_key(key));
    let key = match run.placement.anti_affinity {
        AntiAffinity::None => return None,
        AntiAffinity::SameAction => labels::ACTION.to_owned(),
        AntiAffinity::SameSelector => selector_key.unwrap_or_else(|| labels::ACTION.to_owned()),
    };
    let value = all.get(&key).cloned().unwrap_or_default();
    let others = LabelSelectorRequirement {
        key: labels::FLOW.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![run.flow_id()]),
    };
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some([(key, value)].into()),
            match_expressions: Some(vec![others]),
        }),
        topology_key: HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let anti = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term]),
        ..PodAntiAffinity::default()
    };
    Some(Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() })
}
