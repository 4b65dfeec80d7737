//! What is watched, and which changes matter.

use kube::Resource;
use kube::core::Selector;

use crate::bindings::wasm_operator::controller::types;

pub use types::Mapping;

/// One watch: where, which objects, and which of their changes lead to a reconcile.
///
/// Everything here runs in the host: what it holds back wakes nobody.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub(crate) namespaces: Vec<String>,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) full: bool,
    pub(crate) changed: types::Parts,
    pub(crate) having: Vec<types::FieldValue>,
}

impl Config {
    /// Only objects whose labels match, in the syntax of the Kubernetes API: `app=web,tier!=cache`.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        selector.clone_into(&mut self.label_selector);
        self
    }

    /// [`labels`](Self::labels) from a typed selector.
    #[must_use]
    pub fn labels_from(self, selector: &Selector) -> Self {
        self.labels(&selector.to_string())
    }

    /// Only objects whose fields match: `metadata.name=one`, or what else the API server offers for the kind.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        selector.clone_into(&mut self.field_selector);
        self
    }

    /// Only these namespaces. Without this call: all of them.
    #[must_use]
    pub fn in_namespaces<N: Into<String>>(mut self, namespaces: impl IntoIterator<Item = N>) -> Self {
        self.namespaces.extend(namespaces.into_iter().map(Into::into));
        self
    }

    /// Keep the whole objects in the host's cache, not only their metadata, so that cached reads can return them.
    ///
    /// Of the primary kind the cache always keeps what the controller's type needs: everything, or the metadata for
    /// `Controller::<PartialObjectMeta<K>>`.
    #[must_use]
    pub fn full(mut self) -> Self {
        self.full = true;
        self
    }

    /// Changes of the status do not matter: pass on changes of the generation, of finalizers and of the deletion
    /// timestamp. Kinds without a generation (such as ConfigMaps) pass always.
    #[must_use]
    pub fn when_generation_changed(self) -> Self {
        self.when(types::Parts::GENERATION)
    }

    /// Pass on changes of labels. Several `when_...` add up: any of the named parts.
    #[must_use]
    pub fn when_labels_changed(self) -> Self {
        self.when(types::Parts::LABELS)
    }

    /// Pass on changes of annotations.
    #[must_use]
    pub fn when_annotations_changed(self) -> Self {
        self.when(types::Parts::ANNOTATIONS)
    }

    /// Pass on changes of finalizers.
    #[must_use]
    pub fn when_finalizers_changed(self) -> Self {
        self.when(types::Parts::FINALIZERS)
    }

    /// Pass on changes of objects whose field at `path` (such as `.spec.type`) has this value before or after the
    /// change. Several calls: all must hold.
    #[must_use]
    pub fn having(mut self, path: &str, value: &str) -> Self {
        self.having.push(types::FieldValue { path: path.to_owned(), value: value.to_owned() });
        self
    }

    fn when(mut self, part: types::Parts) -> Self {
        self.changed |= part;
        self
    }

    pub(crate) fn watch<K: Resource>(self, kind: &K::DynamicType, mapping: Mapping, full: bool) -> types::Watch {
        types::Watch {
            of: types::Resource {
                group: K::group(kind).into_owned(),
                version: K::version(kind).into_owned(),
                kind: K::kind(kind).into_owned(),
                plural: K::plural(kind).into_owned(),
            },
            namespaces: self.namespaces,
            label_selector: self.label_selector,
            field_selector: self.field_selector,
            representation: if full { types::Representation::Full } else { types::Representation::Metadata },
            mapping,
            changed: self.changed,
            having: self.having,
        }
    }
}

impl Default for types::Parts {
    fn default() -> Self {
        Self::empty()
    }
}

impl Mapping {
    /// The value of this label of the watched object names the primary, in the same namespace.
    #[must_use]
    pub fn by_label(key: &str) -> Self {
        Self::Label(key.to_owned())
    }

    /// The value of this annotation of the watched object names the primary, as `name` or `namespace/name`.
    #[must_use]
    pub fn by_annotation(key: &str) -> Self {
        Self::Annotation(key.to_owned())
    }

    /// Every primary whose field at this path (such as `.spec.configMapName`) holds the watched object's name.
    #[must_use]
    pub fn by_field(path: &str) -> Self {
        Self::Field(path.to_owned())
    }
}
