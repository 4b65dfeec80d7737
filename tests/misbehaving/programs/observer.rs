//! Watches a kind of any resource, as `RESOURCE` names it (`apps/v1/Deployment/deployments`, `/v1/Pod/pods`), in the namespaces of
//! `NAMESPACES`, and writes `<namespace>/<name>` to stdout for each reconcile. It is how traces of real controllers are recorded.

use misbehaving::guest::bindings;
use misbehaving::guest::types::{Description, Request, Resource};
use misbehaving::guest::{Answer, description, done};

struct Observer;

impl bindings::Guest for Observer {
    fn describe() -> Result<Description, String> {
        let resource = std::env::var("RESOURCE").unwrap_or_default();
        let parts: Vec<String> = resource.split('/').map(str::to_owned).collect();
        let [group, version, kind, plural] =
            parts.try_into().map_err(|_| format!("`RESOURCE` is not group/version/kind/plural but `{resource}`"))?;
        let mut description = description("observer");
        for controller in &mut description.controllers {
            controller.primary.of =
                Resource { group: group.clone(), version: version.clone(), kind: kind.clone(), plural: plural.clone() };
            controller.primary.label_selector = String::new();
            controller.primary.representation = misbehaving::guest::types::Representation::Metadata;
        }
        for rule in &mut description.permissions {
            rule.api_groups = vec![group.clone()];
            rule.resources = vec![plural.clone()];
            rule.verbs = ["get", "list", "watch"].map(str::to_owned).to_vec();
        }
        Ok(description)
    }

    fn reconcile(request: Request) -> Answer {
        println!("{}/{}", request.object.namespace.unwrap_or_default(), request.object.name);
        done()
    }
}

bindings::export!(Observer with_types_in bindings);
