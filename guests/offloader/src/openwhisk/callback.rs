//! What OpenWhisk is told when an action has ended.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fqn::{InvalidName, QualifiedName};

/// The wait after the first refused call; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two calls.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    /// With a result, perhaps none that is JSON.
    Result(Option<&'a Value>),
    /// With this error.
    Error(&'a str),
}

/// The path below `/api/v1/namespaces/` of an endpoint as the status has it: `triggers:<name>` or `actions:<name>`.
///
/// # Errors
/// When the name is none.
pub fn path(endpoint: &str, namespace: &str) -> Result<String, InvalidName> {
    let (collection, name) = endpoint.split_once(':').unwrap_or(("triggers", endpoint));
    Ok(QualifiedName::parse(name, namespace)?.path(collection))
}

/// The body of the call.
#[must_use]
pub fn payload(outcome: Outcome<'_>, flow_id: &str, activation_id: &str, logs: &str) -> Value {
    let logs: Vec<&str> = logs.lines().collect();
    match outcome {
        Outcome::Result(result) => json!({
            "result": result, "offloadingActivationId": activation_id, "activationId": flow_id, "logs": logs,
        }),
        Outcome::Error(error) => json!({
            "error": error, "offloadingActivationId": activation_id, "activationId": flow_id, "logs": logs,
        }),
    }
}

/// The wait after so many refused calls in a row.
#[must_use]
pub fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_and_actions_have_their_paths() {
        for (endpoint, expected) in [
            ("triggers:t1", "_/triggers/t1"),
            ("triggers:/guest/t2", "guest/triggers/t2"),
            ("actions:/guest/pkg/done", "guest/actions/pkg/done"),
        ] {
            assert_eq!(path(endpoint, "_").unwrap(), expected);
        }
        assert!(path("triggers:/x", "_").is_err());
    }

    #[test]
    fn the_payload_has_a_result_or_an_error() {
        let result = json!({"sum": 3});
        assert_eq!(
            payload(Outcome::Result(Some(&result)), "f", "a1", "one\ntwo"),
            json!({"result": {"sum": 3}, "offloadingActivationId": "a1", "activationId": "f", "logs": ["one", "two"]})
        );
        let error = payload(Outcome::Error("DeadlineExceeded: too slow"), "f", "a1", "");
        assert_eq!(error["error"], "DeadlineExceeded: too slow");
        assert!(error.get("result").is_none());
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!([1, 2, 3, 9, 10, 1000].map(|attempts| backoff(attempts).as_secs()), [1, 2, 4, 256, 300, 300]);
    }
}
