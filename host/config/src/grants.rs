//! What the administrator grants: rules, or what the component asks for.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use wasm_operator_core::permission::{Rule, Ungrantable, check_grantable, missing};

use crate::approval::Approval;

const AS_REQUESTED: &str = "as-requested";
const DIGEST_PREFIX: &str = "as-requested@sha256:";
/// Hexadecimal digits of a SHA-256.
const DIGEST_LENGTH: usize = 64;

/// The `permissions` of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// These rules and nothing else. Empty, the default, denies everything.
    Rules(Vec<Rule>),
    /// What the component asks for, as long as it is the component that was seen first, or asks for no more than that one.
    AsRequested,
    /// What the component with this SHA-256 (hexadecimal, lower case) asks for.
    AsRequestedBy(String),
}

impl Default for Grants {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

/// A guest gets no permissions. Mended by the administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The component asks for something that nobody may grant.
    #[error(
        "the component asks for `{rule}`: {source}; list under `permissions` what it is to get instead of `as-requested`"
    )]
    Ungrantable {
        /// What it asks for.
        rule: String,
        /// Why not.
        source: Ungrantable,
    },
    /// The component is another one than the administrator named.
    #[error(
        "`permissions` are bound to the component sha256:{expected}, and this one is sha256:{found}; \
         if it may have what it asks for, write `as-requested@sha256:{found}`"
    )]
    OtherComponent {
        /// The digest in the configuration.
        expected: String,
        /// The component's digest.
        found: String,
    },
    /// The component was replaced by one that asks for more.
    #[error(
        "the component was replaced and asks for more than was approved: {}; \
         if it may have that, write `permissions: as-requested@sha256:{found}`", list(.more)
    )]
    AsksForMore {
        /// What was not approved.
        more: Vec<Rule>,
        /// The component's digest.
        found: String,
    },
}

fn list(rules: &[Rule]) -> String {
    rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ")
}

impl Grants {
    /// Nothing is granted, whatever the component asks for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Rules(rules) if rules.is_empty())
    }

    /// Whether the rules depend on the component, and an [`Approval`] is to be kept.
    #[must_use]
    pub fn follows_component(&self) -> bool {
        !matches!(self, Self::Rules(_))
    }

    /// The rules that the guest gets. `requested` is what the component with SHA-256 `digest` asks for, `approved` what was
    /// kept for this guest when it last got its rules. After a success with [`follows_component`](Self::follows_component)
    /// the caller keeps the answer as the new approval.
    pub fn resolve(
        &self,
        requested: &[Rule],
        digest: &str,
        approved: Option<&Approval>,
        host_namespace: Option<&str>,
    ) -> Result<Vec<Rule>, GrantError> {
        match (self, approved) {
            (Self::Rules(rules), _) => return Ok(rules.clone()),
            (Self::AsRequestedBy(expected), _) if expected != digest => {
                return Err(GrantError::OtherComponent { expected: expected.clone(), found: digest.to_owned() });
            }
            (Self::AsRequested, Some(approved)) if approved.digest != digest => {
                let more = missing(requested, &approved.rules);
                if !more.is_empty() {
                    return Err(GrantError::AsksForMore { more, found: digest.to_owned() });
                }
            }
            _ => {}
        }
        for rule in requested {
            check_grantable(rule, host_namespace)
                .map_err(|source| GrantError::Ungrantable { rule: rule.to_string(), source })?;
        }
        Ok(requested.to_vec())
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == AS_REQUESTED {
            return Ok(Self::AsRequested);
        }
        let Some(digest) = text.strip_prefix(DIGEST_PREFIX) else {
            return Err(format!(
                "`{text}` are no permissions: a list of rules, `{AS_REQUESTED}` or `{DIGEST_PREFIX}<digest>` is expected"
            ));
        };
        if digest.len() != DIGEST_LENGTH || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!(
                "a SHA-256 digest has {DIGEST_LENGTH} digits of `0-9a-f`; `wasm-operator inspect` prints the component's"
            ));
        }
        Ok(Self::AsRequestedBy(digest.to_owned()))
    }
}

impl Serialize for Grants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rules(rules) => rules.serialize(serializer),
            Self::AsRequested => serializer.serialize_str(AS_REQUESTED),
            Self::AsRequestedBy(digest) => serializer.collect_str(&format_args!("{DIGEST_PREFIX}{digest}")),
        }
    }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Grants;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of rules or `{AS_REQUESTED}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Grants, E> {
                Grants::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, rules: A) -> Result<Grants, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(rules)).map(Grants::Rules)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Grants {
    fn schema_name() -> Cow<'static, str> {
        "Grants".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rules = generator.subschema_for::<Vec<Rule>>();
        json_schema!({
            "description": "A list of rules, `as-requested` (what the component asks for, bound to the component that is seen first) or `as-requested@sha256:<digest>` (bound to this component).",
            "anyOf": [rules, { "type": "string", "pattern": "^as-requested(@sha256:[0-9a-f]{64})?$" }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(resource: &str) -> Rule {
        serde_json::from_value(serde_json::json!({ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }))
            .unwrap()
    }

    fn approval(digest: &str, resource: &str) -> Approval {
        Approval { digest: digest.to_owned(), rules: vec![rule(resource)] }
    }

    #[test]
    fn listed_rules_are_granted_whatever_the_component_asks_for() {
        let grants = Grants::Rules(vec![rule("pods")]);
        assert_eq!(grants.resolve(&[rule("secrets")], "aa", None, None), Ok(vec![rule("pods")]));
        assert_eq!(Grants::default().resolve(&[rule("secrets")], "aa", None, None), Ok(vec![]));
    }

    #[test]
    fn the_first_component_gets_what_it_asks_for() {
        assert_eq!(Grants::AsRequested.resolve(&[rule("pods")], "aa", None, None), Ok(vec![rule("pods")]));
    }

    #[test]
    fn a_replaced_component_that_asks_for_more_waits() {
        let error = Grants::AsRequested
            .resolve(&[rule("pods"), rule("secrets")], "bb", Some(&approval("aa", "pods")), None)
            .unwrap_err();
        assert_eq!(error, GrantError::AsksForMore { more: vec![rule("secrets")], found: "bb".into() });
        let text = error.to_string();
        assert!(
            text.contains("`get secrets`") && !text.contains("pods") && text.contains("as-requested@sha256:bb"),
            "{text}"
        );
    }

    #[test]
    fn a_replaced_component_that_asks_for_no_more_goes_on() {
        let all = approval("aa", "*");
        assert_eq!(Grants::AsRequested.resolve(&[rule("pods")], "bb", Some(&all), None), Ok(vec![rule("pods")]));
    }

    #[test]
    fn a_named_digest_admits_that_component_only() {
        let grants = Grants::AsRequestedBy("aa".into());
        // The administrator's word counts, not what was kept before.
        assert_eq!(
            grants.resolve(&[rule("pods")], "aa", Some(&approval("bb", "secrets")), None),
            Ok(vec![rule("pods")])
        );
        let error = grants.resolve(&[], "bb", Some(&approval("bb", "*")), None).unwrap_err();
        assert_eq!(error, GrantError::OtherComponent { expected: "aa".into(), found: "bb".into() });
    }

    #[test]
    fn asking_does_not_get_what_nobody_may_grant() {
        for grants in [Grants::AsRequested, Grants::AsRequestedBy("aa".into())] {
            let error = grants.resolve(&[rule("pods"), rule("pods/exec")], "aa", None, None).unwrap_err();
            assert!(matches!(&error, GrantError::Ungrantable { rule, .. } if rule == "get pods/exec"), "{error}");
            let mut host = rule("pods");
            host.namespaces = vec!["host".into()];
            assert!(grants.resolve(&[host], "aa", None, Some("host")).is_err());
        }
    }
}
