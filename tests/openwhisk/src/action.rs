//! Actions as OpenWhisk shows them.

use serde_json::{Map, Value, json};

/// An action. `exec` has the documented forms: code of a runtime, an image, or a sequence of other actions.
#[derive(Debug, Clone)]
pub struct Action {
    exec: Map<String, Value>,
    annotations: Vec<Value>,
    parameters: Vec<Value>,
    limits: Map<String, Value>,
    version: String,
}

impl Action {
    /// Code for a runtime, such as `nodejs:6` or `python:3`.
    pub fn code(kind: &str, code: &str) -> Self {
        Self::new(json!({ "kind": kind, "code": code, "binary": false }))
    }

    /// An image of its own.
    pub fn blackbox(image: &str) -> Self {
        Self::new(json!({ "kind": "blackbox", "image": image, "binary": false }))
    }

    /// Other actions, one after the other, by their full names.
    pub fn sequence(components: &[&str]) -> Self {
        Self::new(json!({ "kind": "sequence", "components": components }))
    }

    fn new(exec: Value) -> Self {
        let exec = exec.as_object().cloned().unwrap_or_default();
        let kind = exec.get("kind").cloned().unwrap_or_default();
        let limits = json!({ "concurrency": 1, "logs": 10, "memory": 256, "timeout": 60_000 });
        let action = Self {
            exec,
            annotations: Vec::new(),
            parameters: Vec::new(),
            limits: limits.as_object().cloned().unwrap_or_default(),
            version: "0.0.1".to_owned(),
        };
        // OpenWhisk adds it to every action.
        action.annotation("exec", kind)
    }

    /// The function that is the action's entry. Without it OpenWhisk leaves the field out.
    #[must_use]
    pub fn main(mut self, main: &str) -> Self {
        self.exec.insert("main".to_owned(), main.into());
        self
    }

    /// An annotation, such as `placement`.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.annotations.push(json!({ "key": key, "value": value.into() }));
        self
    }

    /// A default parameter.
    #[must_use]
    pub fn parameter(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.parameters.push(json!({ "key": key, "value": value.into() }));
        self
    }

    /// A limit, such as `memory` (MB), `timeout` (ms) or the forks' `gpu`.
    #[must_use]
    pub fn limit(mut self, name: &str, value: u64) -> Self {
        self.limits.insert(name.to_owned(), value.into());
        self
    }

    /// Its version, such as `0.0.2`.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// The answer to a lookup. `path` is the namespace, with the package if there is one; without `with_code` the code
    /// is left out, as for `?code=false`.
    pub(crate) fn to_json(&self, path: &str, name: &str, with_code: bool) -> Value {
        let mut exec = self.exec.clone();
        if !with_code {
            exec.remove("code");
        }
        json!({
            "namespace": path,
            "name": name,
            "version": self.version,
            "publish": false,
            "updated": 1_557_750_000_000_u64,
            "exec": exec,
            "annotations": self.annotations,
            "parameters": self.parameters,
            "limits": self.limits,
        })
    }
}
