//! The peers' ServiceAccounts, with no more rights than they need.

use harness::ring::{GROUP, RESOURCE};
use harness::{Result, service_account_token};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::{Value, json};

use crate::stage::Stage;

const ROLE: &str = "bench-peer";
const MANAGER: &str = "bench";

/// An account with rights in these namespaces only; returns a token for it.
pub(super) async fn in_namespaces(stage: &Stage, account: &str, namespaces: &[&str]) -> Result<String> {
    role(stage).await?;
    let home = stage.space().namespace("peers").await?;
    for namespace in namespaces {
        let api: Api<RoleBinding> = Api::namespaced(stage.client(), namespace);
        apply(&api, account, "RoleBinding", binding(&home, account)).await?;
    }
    service_account_token(&stage.client(), &home, account).await
}

/// An account with rights in all namespaces; returns a token for it.
pub(super) async fn everywhere(stage: &Stage, account: &str) -> Result<String> {
    role(stage).await?;
    let home = stage.space().namespace("peers").await?;
    let api: Api<ClusterRoleBinding> = Api::all(stage.client());
    apply(&api, account, "ClusterRoleBinding", binding(&home, account)).await?;
    service_account_token(&stage.client(), &home, account).await
}

async fn role(stage: &Stage) -> Result<()> {
    let verbs = ["get", "list", "watch", "create", "update"];
    let rules = json!({ "rules": [{ "apiGroups": [GROUP], "resources": [RESOURCE], "verbs": verbs }] });
    let api: Api<ClusterRole> = Api::all(stage.client());
    apply(&api, ROLE, "ClusterRole", rules).await
}

fn binding(home: &str, account: &str) -> Value {
    json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": home }],
    })
}

async fn apply<K>(api: &Api<K>, name: &str, kind: &str, mut object: Value) -> Result<()>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), "rbac.authorization.k8s.io/v1".into());
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("metadata".to_owned(), json!({ "name": name }));
    }
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}
