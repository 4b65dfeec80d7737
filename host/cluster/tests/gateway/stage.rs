//! What the tests share: a control plane, a host with no more rights than it needs, and guests.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use wasm_operator_cluster::client;
use wasm_operator_cluster::gateway::{
    API_AUTHORITY, Gateway, GatewayMetrics, GuestAccess, GuestGateway, Options, RequestLabels,
};
use wasm_operator_cluster::informer::{
    Informers, Options as InformerOptions, Scope, Subscriber, Subscription, SubscriptionState,
};
use wasm_operator_cluster::metrics::Metrics;
use wasm_operator_cluster::rights::Rights;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::object::Change;
use wasm_operator_core::permission::{Permissions, Rule};
use wasm_operator_core::watch::{Representation, Resource};
use wasm_operator_devel::{ControlPlane, Options as ControlPlaneOptions, State};

/// The control plane that all tests share.
async fn shared() -> Result<Config> {
    static SHARED: OnceCell<(Config, Option<ControlPlane>)> = OnceCell::const_new();
    let start = async || {
        if let Some(state) = State::from_environment() {
            return anyhow::Ok((config_of(&state?.kubeconfig).await?, None));
        }
        let own = ControlPlane::start(ControlPlaneOptions::default().without_controller_manager()).await?;
        anyhow::Ok((config_of(&own.kubeconfig()).await?, Some(own)))
    };
    Ok(SHARED.get_or_try_init(start).await?.0.clone())
}

pub(crate) async fn config_of(kubeconfig: &std::path::Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// One test's part of the cluster.
pub(crate) struct Stage {
    pub(crate) admin: Client,
    /// Where the guests' objects are.
    pub(crate) namespace: String,
    /// Of the host, a ServiceAccount that may act as the listed guests and watch ConfigMaps.
    pub(crate) host: Config,
    pub(crate) informers: Informers,
    pub(crate) informer_metrics: Metrics,
    pub(crate) gateway: Gateway,
    metrics: GatewayMetrics,
}

/// A guest as its HTTP client sees the world.
pub(crate) struct Guest(pub(crate) Arc<GuestGateway>);

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| self.text.clone())
    }

    pub(crate) fn expect(self, code: u16) -> Result<Value> {
        ensure!(self.code == code, "{self:?}");
        self.json()
    }
}

impl Stage {
    /// `name` is the namespace; the host may act as the accounts `a` and `b` in it.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        Self::on(shared().await?, name, InformerOptions::default()).await
    }

    /// As [`new`](Self::new), with informers of another kind.
    pub(crate) async fn with_informers(name: &str, options: InformerOptions) -> Result<Self> {
        Self::on(shared().await?, name, options).await
    }

    pub(crate) async fn on(config: Config, name: &str, options: InformerOptions) -> Result<Self> {
        let admin = client::from_config(config.clone())?;
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        Api::<Namespace>::all(admin.clone()).create(&PostParams::default(), &namespace).await?;
        let host = account(&admin, &config, name, "host").await?;
        let impersonate = json!([{ "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["a", "b"], "verbs": ["impersonate"] }]);
        grant_in(&admin, name, "host-acts", &user(name, "host"), &impersonate).await?;
        let watch = json!([
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"] },
            { "apiGroups": ["gateway.example.com"], "resources": ["things"], "verbs": ["list", "watch"] },
        ]);
        grant_everywhere(&admin, &format!("{name}-host-watches"), &user(name, "host"), &watch).await?;
        for rules in [&impersonate, &watch] {
            in_force(&admin, name, &user(name, "host"), rules).await?;
        }
        let host_client = client::from_config(host.clone())?;
        let rights = Rights::new(host_client.clone());
        let informer_metrics = Metrics::default();
        let informers =
            Informers::new(host_client.clone(), rights.clone(), informer_metrics.clone(), options, Handle::current());
        let metrics = GatewayMetrics::default();
        let gateway = gateway(host_client, &informers, rights, metrics.clone());
        Ok(Self { admin, namespace: name.to_owned(), host, informers, informer_metrics, gateway, metrics })
    }

    pub(crate) fn user(&self, account: &str) -> String {
        user(&self.namespace, account)
    }

    /// A guest whose rules in the host grant everything, so that the cluster's RBAC decides.
    pub(crate) fn guest(&self, account: &str) -> Result<Guest> {
        self.guest_with(account, vec![everything()])
    }

    pub(crate) fn guest_with(&self, account: &str, rules: Vec<Rule>) -> Result<Guest> {
        Ok(Guest(self.gateway.guest(self.access(account, rules)?)?))
    }

    pub(crate) fn access(&self, account: &str, rules: Vec<Rule>) -> Result<GuestAccess> {
        Ok(GuestAccess {
            name: account.into(),
            user: self.user(account),
            permissions: Permissions::new(rules, None)?,
            allowed_hosts: Vec::new(),
            authorities: None,
            limits: Limits { request_milliseconds: 60_000, ..Limits::default() },
            shared_watches: false,
            adopt_field_manager: None,
        })
    }

    /// A gateway that remembers nothing of what guests may do.
    pub(crate) fn fresh_gateway(&self) -> Result<Gateway> {
        Ok(self.gateway_of(client::from_config(self.host.clone())?))
    }

    /// A gateway that reaches the server in another way.
    pub(crate) fn gateway_of(&self, host: Client) -> Gateway {
        gateway(host.clone(), &self.informers, Rights::new(host), GatewayMetrics::default())
    }

    /// Successful reads that the gateway sent to the server.
    pub(crate) fn upstream_reads(&self) -> u64 {
        let labels = RequestLabels { code: "200".to_owned(), method: "GET", host: API_AUTHORITY.to_owned() };
        self.metrics.requests.get_or_create(&labels).get()
    }

    /// Gives a guest's account rights in the test's namespace. The first of them is in force when this returns: the server's
    /// authorizer learns of roles and bindings by watching them.
    pub(crate) async fn grant(&self, account: &str, rules: &Value) -> Result<()> {
        grant_in(&self.admin, &self.namespace, &format!("guest-{account}"), &self.user(account), rules).await?;
        in_force(&self.admin, &self.namespace, &self.user(account), rules).await
    }

    /// Rights to everything that these tests write.
    pub(crate) async fn grant_all(&self, account: &str) -> Result<()> {
        let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        self.grant(account, &all).await
    }

    pub(crate) async fn revoke(&self, account: &str) -> Result<()> {
        let bindings: Api<RoleBinding> = Api::namespaced(self.admin.clone(), &self.namespace);
        bindings.delete(&format!("guest-{account}"), &kube::api::DeleteParams::default()).await?;
        Ok(())
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// As the administrator, without the gateway.
    pub(crate) async fn direct(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let content = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", content).body(body.into())?;
        let answer = self.admin.send(request).await?;
        let code = answer.status().as_u16();
        Ok(Answer { code, text: String::from_utf8(answer.into_body().collect_bytes().await?.to_vec())? })
    }

    /// A cache of the kind in the test's namespace, up to date.
    pub(crate) async fn cache(&self, resource: Resource, representation: Representation) -> Result<Subscription> {
        self.cache_of(resource, representation, "").await
    }

    /// [`cache`](Self::cache) of the objects with these labels.
    pub(crate) async fn cache_of(
        &self,
        resource: Resource,
        representation: Representation,
        label_selector: &str,
    ) -> Result<Subscription> {
        let scope = Scope {
            resource,
            namespaces: vec![self.namespace.clone()],
            label_selector: label_selector.to_owned(),
            field_selector: String::new(),
            representation,
        };
        let subscription = self.informers.subscribe(&scope, None, Arc::new(Silent))?;
        harness::eventually("the cache is filled", async || {
            ensure!(subscription.is_synced());
            Ok(())
        })
        .await?;
        Ok(subscription)
    }

    pub(crate) async fn config_maps(&self) -> Result<Subscription> {
        self.cache(config_map_kind(), Representation::Full).await
    }
}

fn gateway(client: Client, informers: &Informers, rights: Rights, metrics: GatewayMetrics) -> Gateway {
    Gateway::new(client, Arc::new(informers.clone()), rights, metrics, Options::new(Handle::current()))
}

impl Guest {
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let content = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
        self.send_as(method, path, body, &[("content-type", content)]).await
    }

    pub(crate) async fn send_as(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut request = Request::builder().method(method).uri(format!("https://kubernetes.default.svc{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.0.send(request.body(body.into())?, Duration::from_secs(60)).await?;
        let code = answer.status().as_u16();
        Ok(Answer { code, text: String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())? })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, &Value::Null).await
    }
}

pub(crate) fn everything() -> Rule {
    let any = || vec!["*".to_owned()];
    let resources = ["*", "pods/log", "pods/eviction"].map(str::to_owned).to_vec();
    Rule { api_groups: any(), resources, verbs: any(), resource_names: Vec::new(), namespaces: Vec::new() }
}

pub(crate) fn config_map_kind() -> Resource {
    Resource { group: String::new(), version: "v1".into(), kind: "ConfigMap".into(), plural: "configmaps".into() }
}

pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "value": value } })
}

fn user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

async fn account(admin: &Client, config: &Config, namespace: &str, name: &str) -> Result<Config> {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    accounts.create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": name } }))?).await?;
    let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
    let token = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    let token = token.status.and_then(|status| status.token).context("a token")?;
    let mut config = config.clone();
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok(config)
}

/// Waits until the first of these rules is in force: the authorizer learns of roles and bindings by watching them.
async fn in_force(admin: &Client, namespace: &str, user: &str, rules: &Value) -> Result<()> {
    let of_first = |field: &str| rules[0][field][0].as_str().map(str::to_owned);
    let first = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        group: of_first("apiGroups"),
        resource: of_first("resources"),
        verb: of_first("verbs"),
        name: of_first("resourceNames"),
        ..ResourceAttributes::default()
    };
    harness::eventually("the rights are in force", async || {
        let allowed = harness::may(admin.clone(), user, first.clone()).await?;
        ensure!(allowed, "{rules} of {user}");
        Ok(())
    })
    .await
}

async fn grant_in(admin: &Client, namespace: &str, name: &str, user: &str, rules: &Value) -> Result<()> {
    apply(Api::<Role>::namespaced(admin.clone(), namespace), name, role("Role", rules)).await?;
    let roles = Api::<RoleBinding>::namespaced(admin.clone(), namespace);
    apply(roles, name, binding("RoleBinding", "Role", name, user)).await
}

pub(crate) async fn grant_everywhere(admin: &Client, name: &str, user: &str, rules: &Value) -> Result<()> {
    apply(Api::<ClusterRole>::all(admin.clone()), name, role("ClusterRole", rules)).await?;
    let bindings = Api::<ClusterRoleBinding>::all(admin.clone());
    apply(bindings, name, binding("ClusterRoleBinding", "ClusterRole", name, user)).await
}

fn role(kind: &str, rules: &Value) -> Value {
    json!({ "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "rules": rules })
}

fn binding(kind: &str, role: &str, name: &str, user: &str) -> Value {
    json!({
        "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1",
        "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user }],
        "roleRef": { "kind": role, "apiGroup": "rbac.authorization.k8s.io", "name": name },
    })
}

async fn apply<K>(api: Api<K>, name: &str, mut object: Value) -> Result<()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    object["metadata"] = json!({ "name": name });
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

struct Silent;

impl Subscriber for Silent {
    fn changed(&self, _: &Change) {}
    fn state(&self, _: &SubscriptionState) {}
    fn history_lost(&self) {}
}
