//! Reading: the flow's objects from the host's cache, and what is asked for now and then.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use wasm_operator_sdk::{ApiExt as _, owners};

use super::{Context, Error, explain};
use crate::api::OffloadedAction;
use crate::children::ACTION_CONTAINER;
use crate::plan::{Networks, Observed};
use crate::{ids, labels};

/// Lines of the action's output that are kept.
const LOG_LINES: i64 = 50;
/// Bytes of it that are kept, from its end: a status should stay readable.
const LOG_BYTES: usize = 8 << 10;

/// Everything that belongs to the flow.
pub(super) async fn look(action: &OffloadedAction, context: &Context) -> Result<Observed, Error> {
    let mut seen = Observed::new(action.clone(), context.settings.clone());
    let namespace = action.namespace().unwrap_or_default();
    let flow_id = ids::flow_id(action);
    let of_flow = ListParams::default().labels(&format!(
        "{}={flow_id},{}={}",
        labels::FLOW,
        labels::JOB_TYPE,
        labels::JOB_TYPE_VALUE
    ));

    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let jobs = jobs.list_cached(&of_flow).await.map_err(Error::to("list the flow's Jobs"))?;
    for job in jobs.items.into_iter().filter(|job| owners::is_controlled_by(job, action)) {
        if let Some(id) = job.labels().get(labels::JOB).cloned() {
            seen.jobs.insert(id, job);
        }
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    seen.pods = pods.list_cached(&of_flow).await.map_err(Error::to("list the flow's pods"))?.items;
    let services: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
    let name = ids::flow_name(&flow_id);
    let service = services.get_cached(&name).await.map_err(Error::to(format!("read Service `{name}`")))?;
    seen.service = service.filter(|service| owners::is_controlled_by(service, action));
    Ok(seen)
}

/// The end of the action's output. Empty if it cannot be read: the end of an action is not held up by its log.
pub(super) async fn log(action: &OffloadedAction, pod: &str, context: &Context) -> String {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &action.namespace().unwrap_or_default());
    let params =
        LogParams { container: Some(ACTION_CONTAINER.to_owned()), tail_lines: Some(LOG_LINES), ..LogParams::default() };
    match pods.logs(pod, &params).await {
        Ok(log) => tail(&log).to_owned(),
        Err(error) => {
            tracing::warn!(pod, error = %explain(&error), "the log cannot be read");
            String::new()
        }
    }
}

/// The last bytes of a log, from the beginning of a line if there is one.
fn tail(log: &str) -> &str {
    let log = log.trim_end();
    if log.len() <= LOG_BYTES {
        return log;
    }
    let start = log.ceil_char_boundary(log.len() - LOG_BYTES);
    let end = log.get(start..).unwrap_or_default();
    end.split_once('\n').map_or(end, |(_, lines)| lines)
}

/// The networks of the cluster. What the guest may not read stays empty: it is for information.
pub(super) async fn networks(node: &str, context: &Context) -> Networks {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = nodes.get_opt(node).await.unwrap_or_default();
    let pod_cidrs = node.and_then(|node| node.spec?.pod_cidrs).unwrap_or_default();
    let services: Api<ServiceCIDR> = Api::all(context.client.clone());
    let ranges = services.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    let service_cidrs = ranges.into_iter().filter_map(|range| range.spec?.cidrs).flatten().collect();
    Networks { pod_cidrs, service_cidrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept_in_whole_lines() {
        assert_eq!(tail("one\ntwo\n"), "one\ntwo");
        let long = format!("{}\nlast ö\n{}\n", "x".repeat(LOG_BYTES), "y".repeat(20));
        assert_eq!(tail(&long), format!("last ö\n{}", "y".repeat(20)));
        let one_line = "ö".repeat(LOG_BYTES);
        assert!(tail(&one_line).len() <= LOG_BYTES);
    }
}
