//! The objects that a flow consists of, as they are applied. Pure: the same input gives the same objects.

mod config;
mod job;
mod network_policy;
mod secret;
mod service;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use wasm_operator_sdk::owners;

use crate::api::{OffloadedAction, Placement};
use crate::fqn::QualifiedName;
use crate::labels::{self, Labels};
use crate::params::Params;
use crate::settings::Settings;
use crate::{fqn, ids};

pub use config::{conf, conf_name, params as params_config, params_name};
pub use job::{ACTION_CONTAINER, job};
pub use network_policy::network_policy;
pub use secret::secret;
pub use service::{matches as service_matches, ports, service, status as service_status};

/// What the objects of one Job are made from.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The custom resource.
    pub action: &'a OffloadedAction,
    /// The guest's own settings.
    pub settings: &'a Settings,
    /// The action's qualified name.
    pub name: QualifiedName,
    /// Of the Job.
    pub job_id: String,
    /// The image.
    pub image: String,
    /// The placement in effect.
    pub placement: Placement,
    /// Where OpenWhisk is and the key, if the flow has a target.
    pub openwhisk: Option<OpenWhisk>,
    /// The action's parameters.
    pub params: Params,
}

/// What the action is told of OpenWhisk.
#[derive(Clone)]
pub struct OpenWhisk {
    /// Scheme, host and port.
    pub api_host: String,
    /// `user:password`.
    pub api_key: String,
}

impl std::fmt::Debug for OpenWhisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenWhisk").field("api_host", &self.api_host).finish_non_exhaustive()
    }
}

/// All objects that belong to one Job alone, in the order in which they are made.
#[derive(Debug, Clone)]
pub struct RunObjects {
    /// The key, and parameters from a Secret.
    pub secret: Option<Secret>,
    /// Large parameters.
    pub params: Option<ConfigMap>,
    /// The Job.
    pub job: Job,
}

impl Run<'_> {
    /// The objects of the Job.
    #[must_use]
    pub fn objects(&self) -> RunObjects {
        RunObjects { secret: secret::secret(self), params: config::params(self), job: job::job(self) }
    }

    fn flow_id(&self) -> String {
        ids::flow_id(self.action)
    }

    fn labels(&self) -> Labels {
        labels::of_job(labels::of_spec(&self.action.spec, &self.name, &self.placement), &self.flow_id(), &self.job_id)
    }

    fn metadata(&self, name: String) -> ObjectMeta {
        metadata(name, self.labels(), self.action)
    }
}

/// The name of a flow's action. The text passed the schema, so it is one; an odd one names itself.
///
/// # Errors
/// When the text is no name after all.
pub fn name_of(action: &OffloadedAction, namespace: &str) -> Result<QualifiedName, fqn::InvalidName> {
    QualifiedName::parse(&action.spec.action, namespace)
}

/// The metadata of an object that belongs to the whole flow.
fn flow_metadata(name: String, action: &OffloadedAction) -> ObjectMeta {
    let mut labels = Labels::default();
    labels.labels.insert(labels::FLOW.to_owned(), ids::flow_id(action));
    metadata(name, labels, action)
}

fn metadata(name: String, labels: Labels, action: &OffloadedAction) -> ObjectMeta {
    let mut annotations = labels.annotations;
    annotations.insert(labels::OWNER.to_owned(), action.name_any());
    ObjectMeta {
        name: Some(name),
        namespace: action.namespace(),
        labels: Some(labels.labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// Makes the custom resource the owner: its deletion deletes the object.
fn owned<K: kube::Resource>(mut object: K, action: &OffloadedAction) -> K {
    owners::set_controller(&mut object, action);
    object
}

/// The NetworkPolicy of a flow, if it has one.
#[must_use]
pub fn policy(action: &OffloadedAction) -> Option<NetworkPolicy> {
    network_policy::network_policy(action)
}

/// The Service of a flow, if it has one, for the Job that is to be reached.
#[must_use]
pub fn flow_service(action: &OffloadedAction, serving: &str, settings: &Settings) -> Option<Service> {
    service::service(action, serving, settings)
}

#[cfg(test)]
pub(crate) mod tests;
