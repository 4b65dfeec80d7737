//! Writing: each write of a step, and what it changes in what was seen.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use wasm_operator_sdk::ApiExt as _;
use wasm_operator_sdk::events::{Event, EventType, Recorder};

use super::reference::{params_of, target_of};
use super::{Context, Error, explain};
use crate::api::{FINALIZER, GROUP, OffloadedAction, OffloadedActionStatus};
use crate::children::{self, OpenWhisk, Run};
use crate::plan::{Notice, Observed, Rejection, Write, job_patch};
use crate::{ids, labels};

/// Does the writes in their order. A refusal ends them and becomes part of what was seen.
pub(super) async fn all(
    seen: &mut Observed,
    writes: &[Write],
    status: &OffloadedActionStatus,
    context: &Context,
) -> Result<(), Error> {
    for write in writes {
        let done = one(seen, write, status, context).await;
        match done {
            Ok(()) => {}
            Err(Error::Kubernetes { what, source }) if is_final(&source) => {
                let message = format!("cannot {what}: {}", explain(&source));
                tracing::warn!(%message, "refused");
                seen.rejection = Some(Rejection { write: write.clone(), message });
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if *write == Write::Status {
            seen.delivery = None;
            seen.rejection = None;
        }
    }
    Ok(())
}

/// Whether the API server would refuse the same write again. A missing right counts: nobody here can mend it.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

async fn one(
    seen: &mut Observed,
    write: &Write,
    status: &OffloadedActionStatus,
    context: &Context,
) -> Result<(), Error> {
    let action = seen.action.clone();
    let place = Place { context, namespace: action.namespace().unwrap_or_default() };
    let flow_id = ids::flow_id(&action);
    match write {
        Write::Finalizer(wanted) => finalizer(seen, *wanted, &place).await?,
        Write::Status => write_status(seen, status, &place).await?,
        Write::Run(job_id) => run(seen, job_id, &place).await?,
        Write::Conf => match children::conf(&action) {
            Some(conf) => drop(place.apply::<ConfigMap>("ConfigMap", &conf).await?),
            None => {
                place.delete::<ConfigMap>("ConfigMap", &children::conf_name(&flow_id), &DeleteParams::default()).await?
            }
        },
        Write::Policy => match children::policy(&action) {
            Some(policy) => drop(place.apply::<NetworkPolicy>("NetworkPolicy", &policy).await?),
            None => {
                let name = ids::flow_name(&flow_id);
                place.delete::<NetworkPolicy>("NetworkPolicy", &name, &DeleteParams::default()).await?;
            }
        },
        Write::Service(serving) => {
            if let Some(service) = children::flow_service(&action, serving, &seen.settings) {
                seen.service = Some(place.apply("Service", &service).await?);
            }
        }
        Write::DeleteService => delete_service(seen, &flow_id, &place).await?,
        Write::Job(job_id) => patch_job(seen, job_id, &place).await?,
        Write::DeleteRun(job_id) => {
            let name = ids::job_name(job_id);
            place.delete::<Secret>("Secret", &name, &DeleteParams::default()).await?;
            let params = children::params_name(job_id);
            place.delete::<ConfigMap>("ConfigMap", &params, &DeleteParams::default()).await?;
            delete_job(seen, job_id, &DeleteParams::foreground(), &place).await?;
        }
        Write::DeleteJob(job_id) => delete_job(seen, job_id, &DeleteParams::background(), &place).await?,
        Write::DeleteFlow => {
            let conf = children::conf_name(&flow_id);
            place.delete::<ConfigMap>("ConfigMap", &conf, &DeleteParams::default()).await?;
            let policy = ids::flow_name(&flow_id);
            place.delete::<NetworkPolicy>("NetworkPolicy", &policy, &DeleteParams::default()).await?;
            delete_service(seen, &flow_id, &place).await?;
        }
        Write::Event(notice) => publish(&action, notice, context).await,
    }
    Ok(())
}

/// Where objects are written.
struct Place<'a> {
    context: &'a Context,
    namespace: String,
}

impl Place<'_> {
    fn api<K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    async fn apply<K>(&self, kind: &str, object: &K) -> Result<K, Error>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let what = format!("apply {kind} `{}`", object.name_any());
        self.api::<K>().apply(object).await.map_err(Error::to(what))
    }

    /// An object that is not there is what was wanted.
    async fn delete<K>(&self, kind: &str, name: &str, params: &DeleteParams) -> Result<(), Error>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        match self.api::<K>().delete(name, params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Error::to(format!("delete {kind} `{name}`"))),
        }
    }
}

/// A merge patch replaces the whole list, so the version must be the one that the list was read from.
async fn finalizer(seen: &mut Observed, wanted: bool, place: &Place<'_>) -> Result<(), Error> {
    let action = &seen.action;
    let mut finalizers = action.finalizers().to_vec();
    finalizers.retain(|name| name != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {
        "uid": action.uid(), "resourceVersion": action.resource_version(), "finalizers": finalizers,
    }});
    let api = place.api::<OffloadedAction>();
    match api.patch_metadata(&action.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(answer) => seen.action.metadata = answer.metadata,
        Err(kube::Error::Api(status)) if status.code == 404 && !wanted => {}
        Err(error) if is_conflict(&error) => return Err(Error::Conflict),
        Err(error) => return Err(Error::to("change the finalizers of the custom resource")(error)),
    }
    Ok(())
}

/// The version makes sure that nobody else decided something meanwhile.
async fn write_status(seen: &mut Observed, status: &OffloadedActionStatus, place: &Place<'_>) -> Result<(), Error> {
    let name = seen.action.name_any();
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "OffloadedAction",
        "metadata": {"name": name, "resourceVersion": seen.action.resource_version()},
        "status": status,
    });
    let params = PatchParams { force: true, ..PatchParams::default() };
    match place.api::<OffloadedAction>().patch_status(&name, &params, &Patch::Apply(patch)).await {
        Ok(answer) => {
            seen.action = answer;
            Ok(())
        }
        Err(error) if is_conflict(&error) => Err(Error::Conflict),
        Err(error) => Err(Error::to("write the status of the custom resource")(error)),
    }
}

/// Secret, parameters and Job, in this order. What they are made from is read again: nothing of it is in memory after a
/// restart, so there is one way only.
async fn run(seen: &mut Observed, job_id: &str, place: &Place<'_>) -> Result<(), Error> {
    let context = place.context;
    let action = seen.action.clone();
    let status = seen.status();
    let refused = |message: String| Error::Refused(message);
    let target = target_of(&action, context).await?.map_err(|refusal| refused(refusal.message))?;
    let params = params_of(&action, context).await?.map_err(|refusal| refused(refusal.message))?;
    let namespace = target.as_ref().map_or("_", |target| target.connection.namespace());
    let run = Run {
        action: &action,
        settings: &context.settings,
        name: children::name_of(&action, namespace).map_err(|error| refused(error.to_string()))?,
        job_id: job_id.to_owned(),
        image: status.resolved_image.unwrap_or_default(),
        placement: status.placement.unwrap_or_default(),
        openwhisk: target.as_ref().map(|target| OpenWhisk {
            api_host: target.connection.api_host().to_owned(),
            api_key: target.api_key.clone(),
        }),
        params,
    };
    let objects = run.objects();
    if let Some(secret) = &objects.secret {
        place.apply::<Secret>("Secret", secret).await?;
    }
    if let Some(params) = &objects.params {
        place.apply::<ConfigMap>("ConfigMap", params).await?;
    }
    let job = match place.apply::<Job>("Job", &objects.job).await {
        // Most of a Job cannot be changed. If it is there, it was made from this very status.
        Err(Error::Kubernetes { what, source }) if is_final(&source) => {
            let there = place.api::<Job>().get_opt(&ids::job_name(job_id)).await;
            let there = there.map_err(Error::to(format!("read Job `{}`", ids::job_name(job_id))))?;
            let is_ours = |job: &Job| job.labels().get(labels::JOB).is_some_and(|id| id == job_id);
            there.filter(is_ours).ok_or(Error::Kubernetes { what, source })?
        }
        other => other?,
    };
    seen.jobs.insert(job_id.to_owned(), job);
    Ok(())
}

async fn patch_job(seen: &mut Observed, job_id: &str, place: &Place<'_>) -> Result<(), Error> {
    let Some(patch) = seen.jobs.get(job_id).and_then(|job| job_patch(job, &seen.action.spec)) else { return Ok(()) };
    let name = ids::job_name(job_id);
    let patched = place.api::<Job>().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Ok(job) => drop(seen.jobs.insert(job_id.to_owned(), job)),
        Err(kube::Error::Api(status)) if status.code == 404 => drop(seen.jobs.remove(job_id)),
        Err(error) => return Err(Error::to(format!("change Job `{name}`"))(error)),
    }
    Ok(())
}

async fn delete_job(seen: &mut Observed, job_id: &str, params: &DeleteParams, place: &Place<'_>) -> Result<(), Error> {
    place.delete::<Job>("Job", &ids::job_name(job_id), params).await?;
    if let Some(job) = seen.jobs.get_mut(job_id) {
        job.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    }
    Ok(())
}

async fn delete_service(seen: &mut Observed, flow_id: &str, place: &Place<'_>) -> Result<(), Error> {
    place.delete::<Service>("Service", &ids::flow_name(flow_id), &DeleteParams::default()).await?;
    seen.service = None;
    Ok(())
}

/// An event is never worth failing for.
async fn publish(action: &OffloadedAction, notice: &Notice, context: &Context) {
    let event = Event {
        type_: if notice.warning { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.to_owned(),
        note: Some(notice.message.clone()),
        action: "Offload".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(context.client.clone(), GROUP);
    if let Err(error) = recorder.publish(&event, &action.object_ref(&())).await {
        tracing::warn!(reason = notice.reason, error = %explain(&error), "the event cannot be published");
    }
}
