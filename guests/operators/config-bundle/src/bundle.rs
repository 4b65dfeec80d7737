//! The resource, and what follows from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use kube::{CustomResource, Resource as _, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// On each child: the name of its bundle.
pub(crate) const BUNDLE: &str = "examples.wasm-operator.dev/bundle";

/// ConfigMaps that belong together.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "examples.wasm-operator.dev",
    version = "v1",
    kind = "ConfigBundle",
    plural = "configbundles",
    namespaced,
    status = "ConfigBundleStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "ConfigMaps", "type": "integer", "jsonPath": ".status.configMaps"}"#
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigBundleSpec {
    /// The data of each ConfigMap, by the last part of its name: `<bundle>-<this>`.
    pub(crate) config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// What was made of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigBundleStatus {
    /// The generation of the bundle that this is about.
    pub(crate) observed_generation: i64,
    /// The number of its ConfigMaps.
    pub(crate) config_maps: usize,
}

impl ConfigBundle {
    /// The ConfigMaps as they should be.
    pub(crate) fn children(&self) -> Vec<ConfigMap> {
        let (bundle, owner) = (self.name_any(), self.controller_owner_ref(&()));
        let child = |(name, data): (&String, &BTreeMap<String, String>)| ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("{bundle}-{name}")),
                namespace: self.namespace(),
                labels: Some([(BUNDLE.to_owned(), bundle.clone())].into()),
                owner_references: owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            ..ConfigMap::default()
        };
        self.spec.config_maps.iter().map(child).collect()
    }

    /// Those of its children that are there and should not be any more.
    pub(crate) fn surplus<'a>(&self, there: &'a [ConfigMap]) -> Vec<&'a str> {
        let wanted: Vec<_> = self.children().iter().map(ResourceExt::name_any).collect();
        let is_ours = |child: &&ConfigMap| {
            let owners = child.metadata.owner_references.iter().flatten();
            owners
                .into_iter()
                .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == self.meta().uid.as_ref())
        };
        let names = there.iter().filter(is_ours).filter_map(|child| child.metadata.name.as_deref());
        names.filter(|name| !wanted.iter().any(|wanted| wanted == name)).collect()
    }

    /// The status as it should be; None if it is so.
    pub(crate) fn next_status(&self) -> Option<ConfigBundleStatus> {
        let status = ConfigBundleStatus {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            config_maps: self.spec.config_maps.len(),
        };
        (self.status.as_ref() != Some(&status)).then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;

    const CRD: &str = include_str!("../crd.yaml");

    fn bundle(names: &[&str]) -> ConfigBundle {
        let data = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        let config_maps = names.iter().map(|name| ((*name).to_owned(), data.clone())).collect();
        let mut bundle = ConfigBundle::new("app", ConfigBundleSpec { config_maps });
        bundle.metadata.namespace = Some("here".to_owned());
        bundle.metadata.uid = Some("1".to_owned());
        bundle.metadata.generation = Some(3);
        bundle
    }

    #[test]
    fn children_bear_the_bundles_name_and_belong_to_it() {
        let children = bundle(&["one", "two"]).children();
        let names: Vec<_> = children.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["app-one", "app-two"]);
        for child in children {
            assert_eq!(child.labels()[BUNDLE], "app");
            assert_eq!(child.owner_references()[0].uid, "1");
        }
    }

    #[test]
    fn only_own_children_are_surplus() {
        let mut there = bundle(&["old", "kept"]).children();
        let mut foreign = there[0].clone();
        foreign.metadata.owner_references = None;
        foreign.metadata.name = Some("app-foreign".to_owned());
        there.push(foreign);
        assert_eq!(bundle(&["kept", "new"]).surplus(&there), ["app-old"]);
    }

    #[test]
    fn a_status_that_is_right_is_not_written_again() {
        let mut bundle = bundle(&["one"]);
        let status = bundle.next_status().unwrap();
        assert_eq!((status.observed_generation, status.config_maps), (3, 1));
        bundle.status = Some(status);
        assert_eq!(bundle.next_status(), None);
    }

    #[test]
    fn the_definition_is_that_of_the_code() {
        let text = serde_saphyr::to_string(&ConfigBundle::crd()).unwrap();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/crd.yaml"), text).unwrap();
        } else {
            assert_eq!(text, CRD, "renew it with `UPDATE_EXPECTED=1 cargo test`");
        }
    }
}
