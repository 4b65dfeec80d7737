//! Why a tree is not the type that it should be.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::node::NodeId;

/// An error of serde that keeps its parts, and the node that it is about.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Set by the innermost node on the way out.
    pub(crate) node: Option<NodeId>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A check of a value failed; the words of the check.
    Other(String),
    /// The value has the wrong type or is out of range.
    Wrong {
        found: String,
        expected: String,
    },
    UnknownField {
        name: String,
        expected: &'static [&'static str],
    },
    UnknownVariant {
        name: String,
        expected: &'static [&'static str],
    },
    MissingField(&'static str),
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Self { node: None, kind }
    }

    pub(crate) fn at(mut self, node: NodeId) -> Self {
        self.node.get_or_insert(node);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Other(message) => f.write_str(message),
            Kind::Wrong { found, expected } => write!(f, "expected {expected}, found {found}"),
            Kind::UnknownField { name, .. } => write!(f, "unknown field `{name}`"),
            Kind::UnknownVariant { name, .. } => write!(f, "unknown value `{name}`"),
            Kind::MissingField(name) => write!(f, "`{name}` is missing"),
        }
    }
}

impl std::error::Error for Fault {}

/// serde names types of Rust; people write YAML.
fn expectation(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "a string" => "text".into(),
        "u64" | "usize" => "a whole number".into(),
        "u32" => "a whole number of at most 4294967295".into(),
        other if other.starts_with("struct ") => "fields (`name: value`)".into(),
        other if other.starts_with("variant identifier") || other.starts_with("enum ") => "one word".into(),
        _ => text,
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("the text `{text}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "fields".into(),
        other => other.to_string(),
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::Wrong { found: found(unexpected), expected: expectation(expected) })
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownVariant { name: variant.to_owned(), expected })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownField { name: field.to_owned(), expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::MissingField(field))
    }
}
