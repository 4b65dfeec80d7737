//! `wasm_config.yaml` from builders.

use std::path::Path;

use serde_json::{Map, Value, json};

/// One document of the configuration.
#[derive(Debug, Clone)]
pub struct Guest {
    program: String,
    fields: Map<String, Value>,
}

/// A permission rule.
#[derive(Debug, Clone)]
pub struct Rule(Map<String, Value>);

impl Rule {
    /// Verbs on plurals of a group.
    pub fn new(group: &str, resources: &[&str], verbs: &[&str]) -> Self {
        let rule = json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
        Self(rule.as_object().cloned().unwrap_or_default())
    }

    /// Everything that a watched kind needs: get, list, watch.
    pub fn read(group: &str, resource: &str) -> Self {
        Self::new(group, &[resource], &["get", "list", "watch"])
    }

    /// In this namespace only. May be repeated.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        self.with("namespaces", namespace)
    }

    /// This object only. May be repeated.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with("resourceNames", name)
    }

    fn with(mut self, field: &str, value: &str) -> Self {
        if let Some(list) = self.0.entry(field).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value.into());
        }
        self
    }
}

impl Guest {
    /// A guest of this name that runs the component of `program`.
    pub fn new(name: &str, program: &str) -> Self {
        let guest = Self { program: program.to_owned(), fields: Map::new() };
        guest.set("name", name)
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        self.fields.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: impl ToString) -> Self {
        self.push("env", json!({ "name": name, "value": value.to_string() }))
    }

    /// Grants a rule.
    #[must_use]
    pub fn grant(self, rule: Rule) -> Self {
        self.push("permissions", Value::Object(rule.0))
    }

    /// Grants what the component asks for.
    #[must_use]
    pub fn grant_as_requested(self) -> Self {
        self.set("permissions", "as-requested")
    }

    /// Sets a limit.
    #[must_use]
    pub fn limit(mut self, name: &str, value: u64) -> Self {
        if let Some(limits) = self.fields.entry("limits").or_insert_with(|| json!({})).as_object_mut() {
            limits.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Sets any field of the document.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// Sleeps after so much idle time: `50ms`, `1s`.
    #[must_use]
    pub fn idle_after(self, duration: &str) -> Self {
        self.set("sleep", json!({ "mode": "Fixed", "idleAfter": duration }))
    }

    /// Takes the component from this file instead.
    #[must_use]
    pub fn wasm(self, path: &Path) -> Self {
        self.set("wasm", path.display().to_string())
    }

    fn push(mut self, field: &str, value: Value) -> Self {
        if let Some(list) = self.fields.entry(field).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value);
        }
        self
    }

    fn document(&self) -> anyhow::Result<String> {
        let mut fields = self.fields.clone();
        if !fields.contains_key("wasm") {
            fields.insert("wasm".to_owned(), crate::component(&self.program)?.display().to_string().into());
        }
        Ok(format!("{:#}\n", Value::Object(fields)))
    }
}

/// The text of a configuration with these guests.
pub fn documents(guests: &[Guest]) -> anyhow::Result<String> {
    Ok(guests.iter().map(Guest::document).collect::<anyhow::Result<Vec<_>>>()?.join("---\n"))
}
