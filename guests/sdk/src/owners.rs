//! Owner references: the API server's garbage collection deletes what belongs to a deleted owner.

use kube::Resource;

/// Makes `owner` the controller of `child`, in place of an earlier reference to it.
///
/// Returns false, and changes nothing, when `owner` was not read from the cluster (it has no name or uid). Owner and
/// child must be in the same namespace, or the owner cluster-scoped.
pub fn set_controller<O: Resource<DynamicType = ()>, C: Resource>(child: &mut C, owner: &O) -> bool {
    let Some(reference) = owner.controller_owner_ref(&()) else { return false };
    let references = child.meta_mut().owner_references.get_or_insert_default();
    references.retain(|known| known.uid != reference.uid);
    references.push(reference);
    true
}

/// Whether `owner` is the controller of `child`.
#[must_use]
pub fn is_controlled_by<O: Resource, C: Resource>(child: &C, owner: &O) -> bool {
    let uid = owner.meta().uid.as_deref();
    uid.is_some()
        && child
            .meta()
            .owner_references
            .iter()
            .flatten()
            .any(|reference| reference.controller == Some(true) && Some(reference.uid.as_str()) == uid)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ObjectMeta;

    use super::*;

    fn config_map(name: &str, uid: Option<&str>) -> ConfigMap {
        let metadata = ObjectMeta { name: Some(name.to_owned()), uid: uid.map(str::to_owned), ..ObjectMeta::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn an_owner_is_set_once() {
        let owner = config_map("owner", Some("1"));
        let mut child = config_map("child", None);

        assert!(set_controller(&mut child, &owner));
        assert!(set_controller(&mut child, &owner));

        assert!(is_controlled_by(&child, &owner));
        let references = child.metadata.owner_references.unwrap();
        assert_eq!(references.len(), 1);
        assert_eq!((references[0].kind.as_str(), references[0].name.as_str()), ("ConfigMap", "owner"));
    }

    #[test]
    fn an_owner_of_the_same_name_that_was_created_again_is_another_one() {
        let mut child = config_map("child", None);
        set_controller(&mut child, &config_map("owner", Some("1")));

        assert!(!is_controlled_by(&child, &config_map("owner", Some("2"))));
    }

    #[test]
    fn an_owner_that_was_never_read_is_refused() {
        let mut child = config_map("child", None);

        assert!(!set_controller(&mut child, &config_map("owner", None)));
        assert!(child.metadata.owner_references.is_none());
        assert!(!is_controlled_by(&child, &config_map("owner", None)));
    }
}
