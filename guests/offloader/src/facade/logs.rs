//! `/getLogs`: what an action wrote.

use kube::ResourceExt as _;
use kube::api::LogParams;
use serde_json::{Map, Value, json};

use super::Facade;
use super::call;
use super::reply::{Answer, Fault};
use crate::children::ACTION_CONTAINER;
use crate::labels;

/// The most lines of one pod's output: an answer has a limit, a log has none.
const MOST_LINES: i64 = 10_000;

impl Facade {
    /// There is no invoker container any more, so its list is empty.
    pub(super) async fn get_logs(&self, value: &Map<String, Value>) -> Result<Answer, Fault> {
        let job_id = call::text(value, "jobId");
        let job_id = job_id.ok_or_else(|| Fault::bad_request("Did not receive jobId for /getLogs route."))?;
        let mut lines: Vec<String> = Vec::new();
        let pods = self.pods(labels::JOB, &job_id).await?;
        for pod in &pods {
            let params = LogParams {
                container: Some(ACTION_CONTAINER.to_owned()),
                timestamps: true,
                tail_lines: Some(MOST_LINES),
                ..LogParams::default()
            };
            let log = self.api::<k8s_openapi::api::core::v1::Pod>().logs(&pod.name_any(), &params).await;
            lines.extend(log.map_err(Fault::kubernetes)?.lines().map(str::to_owned));
        }
        if pods.is_empty() {
            // The pod is gone; its last lines are not.
            let flows = self.flows().await?;
            let statuses = flows.iter().filter_map(|flow| flow.status.as_ref());
            let of_job = statuses.filter(|status| status.job_id.as_ref() == Some(&job_id));
            let tails = of_job.filter_map(|status| status.log_tail.as_deref());
            lines.extend(tails.flat_map(str::lines).map(str::to_owned));
        }
        Ok(Answer::Json(json!({ "actionLogs": lines, "invokerLogs": [] })))
    }
}
