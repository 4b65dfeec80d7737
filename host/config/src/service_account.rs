//! The account that a guest acts as.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use wasm_operator_core::permission::ServiceAccountUser;

use crate::names::{is_label, is_subdomain};

/// `name`, or `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// None: the host's.
    pub namespace: Option<String>,
    /// The account's name.
    pub name: String,
}

impl ServiceAccount {
    fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        (namespace.is_none_or(is_label) && is_subdomain(name))
            .then(|| Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }

    /// The user that the API server knows.
    #[must_use]
    pub fn user(&self, host_namespace: &str) -> ServiceAccountUser {
        let namespace = self.namespace.as_deref().unwrap_or(host_namespace);
        ServiceAccountUser { namespace: namespace.to_owned(), name: self.name.clone() }
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Serialize for ServiceAccount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAccount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let hint = match text.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
                Some((namespace, name)) => format!("; write `{namespace}/{name}`"),
                None => String::new(),
            };
            de::Error::custom(format!(
                "`{text}` is not a service account: `name` or `namespace/name` is expected{hint}"
            ))
        })
    }
}

impl JsonSchema for ServiceAccount {
    fn schema_name() -> Cow<'static, str> {
        "ServiceAccount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`name` in the host's namespace, or `namespace/name`.",
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_in_the_hosts_namespace() {
        let account = ServiceAccount::parse("ring.reader").unwrap();
        assert_eq!(account.user("host").to_string(), "system:serviceaccount:host:ring.reader");
        assert_eq!(
            ServiceAccount::parse("team/ring").unwrap().user("host").to_string(),
            "system:serviceaccount:team:ring"
        );
    }

    #[test]
    fn nothing_but_an_account_is_an_account() {
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "A",
            "a:b",
            "a b",
            "system:serviceaccount:a:b",
            "a.b/c",
            "a\n",
            "default/\u{0}",
        ] {
            assert_eq!(ServiceAccount::parse(bad), None, "{bad:?}");
        }
    }
}
