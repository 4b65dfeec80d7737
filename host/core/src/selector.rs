//! Label and field selectors in the syntax of the Kubernetes API, and their evaluation against cached objects.

use crate::object::Metadata;

mod label;

pub use label::LabelSelector;
pub(crate) use label::is_label_key;

/// A selector that the API server would refuse, or that the host does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{selector}` is not a selector: {reason}")]
pub struct SelectorError {
    /// The whole selector.
    pub selector: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A parsed field selector: all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FieldTerm {
    field: Box<str>,
    equal: bool,
    value: Box<str>,
}

impl FieldSelector {
    /// Parses `field=value`, `field==value`, `field!=value`, separated by commas. In values `\` escapes `\`, `,` and `=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let error = |reason: &str| SelectorError { selector: text.to_owned(), reason: reason.to_owned() };
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, value)) = term.split_once('=') else {
                return Err(error("a term must be `field=value` or `field!=value`"));
            };
            let (field, equal, value) = match field.strip_suffix('!') {
                Some(field) => (field, false, value),
                None => (field, true, value.strip_prefix('=').unwrap_or(value)),
            };
            let value = unescape(value).ok_or_else(|| error("`\\` must be followed by `\\`, `,` or `=`"))?;
            terms.push(FieldTerm { field: field.into(), equal, value: value.into() });
        }
        Ok(Self { terms })
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it can be evaluated against cached metadata. The API server knows further fields for some kinds.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.terms.iter().all(|term| matches!(&*term.field, "metadata.name" | "metadata.namespace"))
    }

    /// The one name that it selects, if it is of that form: such a list or watch is authorised for that name only.
    #[must_use]
    pub fn single_name(&self) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && &*term.field == "metadata.name").map(|term| &*term.value)
    }

    /// Whether it selects the object; false for fields that are not local.
    #[must_use]
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.terms.iter().all(|term| {
            let value = match &*term.field {
                "metadata.name" => &*metadata.name,
                "metadata.namespace" => metadata.namespace.as_deref().unwrap_or(""),
                _ => return false,
            };
            (value == &*term.value) == term.equal
        })
    }
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;
