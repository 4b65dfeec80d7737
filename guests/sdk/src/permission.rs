//! The permissions that a guest asks for. Asking is not getting: the administrator grants.

use kube::Resource;

use crate::bindings::wasm_operator::controller::types;

/// One rule in RBAC's words, started with a kind: `Rule::on::<ConfigMap>().apply().delete()`.
///
/// What a controller watches is asked for without a rule (`get`, `list`, `watch`).
#[derive(Debug, Clone)]
pub struct Rule(types::PermissionRule);

impl Rule {
    /// A rule on this kind, without verbs yet.
    #[must_use]
    pub fn on<K: Resource<DynamicType = ()>>() -> Self {
        Self::on_kind::<K>(&())
    }

    /// A rule on a kind that is known at run time only, such as `DynamicObject`.
    #[must_use]
    pub fn on_kind<K: Resource>(kind: &K::DynamicType) -> Self {
        Self::on_resource(&K::group(kind), &K::plural(kind))
    }

    /// A rule on a group (empty for the core group) and a plural, or `plural/subresource`.
    #[must_use]
    pub fn on_resource(group: &str, plural: &str) -> Self {
        Self(types::PermissionRule {
            api_groups: vec![group.to_owned()],
            resources: vec![plural.to_owned()],
            verbs: Vec::new(),
            resource_names: Vec::new(),
            namespaces: Vec::new(),
        })
    }

    /// What [`events::Recorder`](crate::events::Recorder) needs.
    #[must_use]
    pub fn events() -> Self {
        Self::on_resource("events.k8s.io", "events").verbs(["create", "get", "patch"])
    }

    /// The subresource instead of the object itself: `Rule::on::<Deployment>().subresource("status").patch()`.
    #[must_use]
    pub fn subresource(mut self, name: &str) -> Self {
        for resource in &mut self.0.resources {
            *resource = format!("{resource}/{name}");
        }
        self
    }

    /// Only objects of these names. The verbs `create` and `list` cannot be restricted so.
    #[must_use]
    pub fn named<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.0.resource_names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Only in these namespaces.
    #[must_use]
    pub fn in_namespaces<N: Into<String>>(mut self, namespaces: impl IntoIterator<Item = N>) -> Self {
        self.0.namespaces.extend(namespaces.into_iter().map(Into::into));
        self
    }

    /// Any verbs.
    #[must_use]
    pub fn verbs<'v>(mut self, verbs: impl IntoIterator<Item = &'v str>) -> Self {
        for verb in verbs {
            if !self.0.verbs.iter().any(|known| known == verb) {
                self.0.verbs.push(verb.to_owned());
            }
        }
        self
    }

    /// `get`, `list` and `watch`.
    #[must_use]
    pub fn read(self) -> Self {
        self.verbs(["get", "list", "watch"])
    }

    /// `create`.
    #[must_use]
    pub fn create(self) -> Self {
        self.verbs(["create"])
    }

    /// `update`.
    #[must_use]
    pub fn update(self) -> Self {
        self.verbs(["update"])
    }

    /// `patch`.
    #[must_use]
    pub fn patch(self) -> Self {
        self.verbs(["patch"])
    }

    /// Server-side apply: `patch`, and `create` for objects that do not exist yet.
    #[must_use]
    pub fn apply(self) -> Self {
        self.verbs(["create", "patch"])
    }

    /// `delete`.
    #[must_use]
    pub fn delete(self) -> Self {
        self.verbs(["delete"])
    }

    pub(crate) fn into_wit(self) -> types::PermissionRule {
        self.0
    }
}

/// What the host needs to run a watch as the guest.
pub(crate) fn to_watch(watch: &types::Watch) -> types::PermissionRule {
    Rule::on_resource(&watch.of.group, &watch.of.plural)
        .read()
        .in_namespaces(watch.namespaces.iter().cloned())
        .into_wit()
}
