//! `/offload`: a custom resource with its target, and the wait for its Service.

use std::hash::BuildHasher as _;
use std::time::Duration;

use futures::TryStreamExt as _;
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};
use wasm_operator_sdk::{ApiExt as _, conditions, owners};

use super::Facade;
use super::call::{self, Call};
use super::reply::{Answer, Fault};
use crate::api::{
    OffloadTarget, OffloadTargetSpec, OffloadedAction, SecretKeyRef, ServiceStatus, ServiceType, TargetRef, condition,
    reason,
};
use crate::fqn::QualifiedName;
use crate::openwhisk::{self, Connection};
use crate::{ids, labels};

/// How long a caller waits for the Service. The original answered when the API server had.
const MOST_WAIT: Duration = Duration::from_secs(20);
/// The longest part of that wait that is one request: the host bounds requests.
const ONE_WATCH_SECONDS: u32 = 8;
/// The entry of the Secret with the key.
const API_KEY: &str = "ow-api-key";

impl Facade {
    pub(super) async fn offload(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let call = call::offload(value, &self.settings)?;
        self.look_up(&call).await?;
        let flow = self.create(&call).await?;
        let answer = match self.complete(&flow, &call).await {
            Ok(()) => self.wait(&flow).await,
            Err(fault) => Err(fault),
        };
        if answer.is_err() {
            // The caller is told of a failure, so nothing may run.
            let deleted = self.api::<OffloadedAction>().delete(&flow.name_any(), &DeleteParams::default()).await;
            if let Err(error) = deleted {
                tracing::warn!(flow = %flow.name_any(), %error, "a failed flow cannot be deleted");
            }
        }
        answer
    }

    /// Asks OpenWhisk with the caller's own key before anything is made.
    pub(super) async fn look_up(&self, call: &Call) -> Result<(), Fault> {
        let name = QualifiedName::parse(&call.spec.action, &call.namespace)
            .map_err(|error| Fault::page(StatusCode::BAD_REQUEST, error.to_string()))?;
        let connection = Connection::new(self.client.clone(), &call.api_host, &call.api_key, &call.namespace);
        let reply = connection.action(&name).await.map_err(Fault::internal)?;
        if !reply.status.is_success() {
            return Err(Fault::page(reply.status, format!("Error while retrieving action {name}")));
        }
        let definition = reply.json().ok_or_else(|| Fault::internal("OpenWhisk's answer is not JSON"))?;
        openwhisk::decode(&definition).map_err(|error| Fault::page(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(())
    }

    /// The custom resource, still suspended: everything else belongs to it, so nothing is left without an owner.
    async fn create(&self, call: &Call) -> Result<OffloadedAction, Fault> {
        let now = Timestamp::now().as_nanosecond();
        let name = format!("offload-{:016x}", std::hash::RandomState::new().hash_one(now));
        let mut spec = call.spec.clone();
        spec.target_ref = Some(TargetRef { name: name.clone() });
        spec.suspend = true;
        let mut flow = OffloadedAction::new(&name, spec);
        let action = QualifiedName::parse(&call.spec.action, &call.namespace).map_err(Fault::internal)?;
        let found_by = labels::of_spec(&flow.spec, &action, &crate::api::Placement::default());
        flow.metadata.labels = Some(found_by.labels);
        flow.metadata.annotations = Some(found_by.annotations);
        self.api().create(&PostParams::default(), &flow).await.map_err(Fault::kubernetes)
    }

    /// The target and its key; then the flow may begin.
    async fn complete(&self, flow: &OffloadedAction, call: &Call) -> Result<(), Fault> {
        let name = flow.name_any();
        let metadata = || ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let data = [(API_KEY.to_owned(), ByteString(call.api_key.clone().into_bytes()))].into();
        let mut secret = Secret { metadata: metadata(), data: Some(data), ..Secret::default() };
        let mut target = OffloadTarget::new(
            &name,
            OffloadTargetSpec {
                api_host: call.api_host.trim_end_matches('/').to_owned(),
                auth_secret_ref: SecretKeyRef { name: name.clone(), key: API_KEY.to_owned() },
                default_namespace: call.namespace.clone(),
            },
        );
        owners::set_controller(&mut secret, flow);
        owners::set_controller(&mut target, flow);
        self.api::<Secret>().apply(&secret).await.map_err(Fault::kubernetes)?;
        self.api::<OffloadTarget>().apply(&target).await.map_err(Fault::kubernetes)?;
        let begin = Patch::Merge(json!({"spec": {"suspend": false}}));
        let begun = self.api::<OffloadedAction>().patch(&name, &PatchParams::default(), &begin).await;
        begun.map(drop).map_err(Fault::kubernetes)
    }

    /// Follows the flow until it is decided. A watch, not a poll: the guest waits in the host meanwhile.
    async fn wait(&self, flow: &OffloadedAction) -> Result<Answer, Fault> {
        let api = self.api::<OffloadedAction>();
        let name = flow.name_any();
        let end = Timestamp::now() + SignedDuration::try_from(MOST_WAIT).unwrap_or_default();
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(ONE_WATCH_SECONDS);
        loop {
            let now = api.get(&name).await.map_err(Fault::kubernetes)?;
            if let Some(answer) = decided(&now) {
                return answer;
            }
            if Timestamp::now() >= end {
                return Err(Fault::internal(format!(
                    "the flow was not ready within {} s: {}",
                    MOST_WAIT.as_secs(),
                    state_of(&now)
                )));
            }
            let version = now.resource_version().unwrap_or_default();
            let mut events = std::pin::pin!(api.watch(&params, &version).await.map_err(Fault::kubernetes)?);
            // A watch that ends early is no failure: the next look tells.
            while let Ok(Some(event)) = events.try_next().await {
                let (WatchEvent::Added(seen) | WatchEvent::Modified(seen)) = event else { continue };
                if let Some(answer) = decided(&seen) {
                    return answer;
                }
            }
        }
    }
}

/// The answer, if the flow has come so far.
pub(super) fn decided(flow: &OffloadedAction) -> Option<Result<Answer, Fault>> {
    let status = flow.status.as_ref()?;
    let of = |type_: &str| conditions::get(&status.conditions, type_);
    let failed =
        |type_: &str, holds: &str| of(type_).filter(|one| one.status == holds && one.reason == reason::CREATE_REJECTED);
    if let Some(refused) = failed(condition::FAILED, "True").or_else(|| failed(condition::SERVICE_READY, "False")) {
        return Some(Err(Fault::internal(&refused.message)));
    }
    if let Some(refused) = of(condition::ACTION_RESOLVED).filter(|one| one.status == "False") {
        let code = match refused.reason.as_str() {
            reason::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            reason::ACTION_NOT_FOUND => StatusCode::NOT_FOUND,
            reason::UNSUPPORTED_KIND | reason::SEQUENCE_NOT_SUPPORTED => StatusCode::BAD_REQUEST,
            _ => return None,
        };
        return Some(Err(Fault::page(code, refused.message.clone())));
    }
    let job_id = status.job_id.as_ref()?;
    let service = match flow.spec.service.type_ {
        // The generation is observed once all objects are there.
        ServiceType::None if status.observed_generation == flow.metadata.generation => json!({}),
        ServiceType::None => return None,
        _ if conditions::holds(&status.conditions, condition::SERVICE_READY) => service(status.service.as_ref()?),
        _ => return None,
    };
    Some(Ok(Answer::Json(json!({ "flowId": ids::flow_id(flow), "jobId": job_id, "service": service }))))
}

/// The Service as the original shows it. A map: of two protocols on one port the later one is shown.
pub(super) fn service(service: &ServiceStatus) -> Value {
    let ports = service.ports.iter().map(|port| {
        let node_port = port.node_port.map_or(json!(-1), |node_port| json!(node_port));
        (port.port.to_string(), node_port)
    });
    json!({ "name": service.name, "service_ports": ports.collect::<Map<String, Value>>() })
}

fn state_of(flow: &OffloadedAction) -> String {
    let conditions = flow.status.iter().flat_map(|status| &status.conditions);
    let open = conditions.filter(|one| one.status == "False" || one.type_ == condition::FAILED);
    let texts: Vec<String> = open.map(|one| format!("{}: {}", one.reason, one.message)).collect();
    if texts.is_empty() { "nothing is known of it".to_owned() } else { texts.join("; ") }
}
