//! What a narrow subscriber sees of a wide stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use wasm_operator_core::object::{Change, Object};
use wasm_operator_core::selector::FieldSelector;

/// The part of a stream that a subscription is about. Label selectors are part of the stream itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Empty: all.
    pub(crate) namespaces: BTreeSet<Arc<str>>,
    pub(crate) fields: FieldSelector,
}

impl Filter {
    pub(crate) fn selects(&self, object: &Object) -> bool {
        let metadata = &object.metadata;
        let namespace = self.namespaces.is_empty()
            || metadata.namespace.as_ref().is_some_and(|namespace| self.namespaces.contains(namespace));
        namespace && self.fields.matches(metadata)
    }

    /// The change as the subscriber sees it: leaving the selection is a delete of the old object, entering it an addition.
    pub(crate) fn narrow(&self, change: &Change) -> Option<Change> {
        let part = |object: &Option<Arc<Object>>| object.clone().filter(|object| self.selects(object));
        let (old, new) = (part(&change.old), part(&change.new));
        (old.is_some() || new.is_some()).then_some(Change { old, new, initial: change.initial })
    }
}
