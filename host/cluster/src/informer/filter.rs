//! What a narrow subscriber sees of a wide stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use wasm_operator_core::object::{Change, Object};
use wasm_operator_core::selector::{FieldSelector, LabelSelector, SelectorError};

use super::Scope;

/// The part of a stream that a subscription is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Empty: all.
    namespaces: BTreeSet<Arc<str>>,
    labels: LabelSelector,
    /// Empty where only the server can evaluate it: then it is part of the stream.
    fields: FieldSelector,
}

impl Filter {
    pub(crate) fn new(scope: &Scope) -> Result<Self, SelectorError> {
        let fields = FieldSelector::parse(&scope.field_selector)?;
        Ok(Self {
            namespaces: scope.namespaces.iter().map(|namespace| Arc::from(namespace.as_str())).collect(),
            labels: LabelSelector::parse(&scope.label_selector)?,
            fields: if fields.is_local() { fields } else { FieldSelector::default() },
        })
    }

    /// Empty: all.
    pub(crate) fn namespaces(&self) -> &BTreeSet<Arc<str>> {
        &self.namespaces
    }

    pub(crate) fn selects(&self, object: &Object) -> bool {
        let metadata = &object.metadata;
        let namespace = self.namespaces.is_empty()
            || metadata.namespace.as_ref().is_some_and(|namespace| self.namespaces.contains(namespace));
        namespace && self.labels.matches(&metadata.labels) && self.fields.matches(metadata)
    }

    /// The change as the subscriber sees it: leaving the selection is a delete of the old object, entering it an addition.
    pub(crate) fn narrow(&self, change: &Change) -> Option<Change> {
        let part = |object: &Option<Arc<Object>>| object.clone().filter(|object| self.selects(object));
        let (old, new) = (part(&change.old), part(&change.new));
        (old.is_some() || new.is_some()).then_some(Change { old, new, initial: change.initial })
    }
}
