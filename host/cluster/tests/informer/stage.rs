//! What the tests share: a control plane, clients with little or much right, and a subscriber that writes down what it hears.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use harness::{PATIENCE, Proxy};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};
use tokio::time::timeout;
use wasm_operator_cluster::client;
use wasm_operator_cluster::informer::{Informers, Options, Scope, Subscriber, Subscription, SubscriptionState};
use wasm_operator_cluster::metrics::{Metrics, ResourceLabel};
use wasm_operator_cluster::rights::Rights;
use wasm_operator_core::object::Change;
use wasm_operator_core::watch::{Representation, Resource};
use wasm_operator_devel::{ControlPlane, Options as ControlPlaneOptions, State};

/// The control plane that most tests share.
pub(crate) async fn shared() -> Result<Config> {
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

/// The cluster as one test uses it.
pub(crate) struct Stage {
    pub(crate) config: Config,
    pub(crate) admin: Client,
    pub(crate) namespace: String,
}

/// Informers and what they measure.
pub(crate) struct Host {
    pub(crate) informers: Informers,
    pub(crate) metrics: Metrics,
}

impl Stage {
    /// On the shared control plane, in a namespace of its own.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        Self::on(shared().await?, name).await
    }

    pub(crate) async fn on(config: Config, name: &str) -> Result<Self> {
        let admin = client::from_config(config.clone())?;
        let stage = Self { config, admin, namespace: name.to_owned() };
        stage.create_namespace(name).await?;
        Ok(stage)
    }

    pub(crate) async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        Api::<Namespace>::all(self.admin.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Informers with the administrator's rights.
    pub(crate) fn host(&self) -> Host {
        host(self.admin.clone(), quick())
    }

    /// Informers behind a network that can be disturbed.
    pub(crate) async fn host_behind_proxy(&self, options: Options) -> Result<(Host, Proxy)> {
        self.behind_proxy(self.config.clone(), options).await
    }

    pub(crate) async fn behind_proxy(&self, mut config: Config, options: Options) -> Result<(Host, Proxy)> {
        let authority = config.cluster_url.authority().context("a server")?.as_str().parse()?;
        let proxy = Proxy::start(authority).await?;
        config.cluster_url = format!("https://{}", proxy.address()).parse()?;
        Ok((host(client::from_config(config)?, options), proxy))
    }

    /// The configuration of a ServiceAccount of the test's namespace, which has no right but those it is given.
    pub(crate) async fn account(&self, name: &str) -> Result<Config> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), &self.namespace);
        let account = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        accounts.create(&PostParams::default(), &account).await?;
        let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
        let token = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = token.status.and_then(|status| status.token).context("a token")?;
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Ok(config)
    }

    pub(crate) fn user(&self, account: &str) -> Arc<str> {
        format!("system:serviceaccount:{}:{account}", self.namespace).into()
    }

    /// Lets a user list and watch ConfigMaps and Secrets, everywhere or in a namespace.
    pub(crate) async fn grant(&self, user: &str, namespace: Option<&str>) -> Result<()> {
        let name = binding_name(user);
        let rules = json!([{ "apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["list", "watch"] }]);
        let role = |kind: &str| json!({ "metadata": { "name": name }, "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "rules": rules });
        let binding = |kind: &str, role: &str| {
            json!({
                "metadata": { "name": name }, "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1",
                "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user }],
                "roleRef": { "kind": role, "apiGroup": "rbac.authorization.k8s.io", "name": name },
            })
        };
        let admin = || self.admin.clone();
        if let Some(namespace) = namespace {
            apply(Api::<Role>::namespaced(admin(), namespace), &name, role("Role")).await?;
            apply(Api::<RoleBinding>::namespaced(admin(), namespace), &name, binding("RoleBinding", "Role")).await
        } else {
            apply(Api::<ClusterRole>::all(admin()), &name, role("ClusterRole")).await?;
            apply(Api::<ClusterRoleBinding>::all(admin()), &name, binding("ClusterRoleBinding", "ClusterRole")).await
        }
    }

    /// Takes back what [`grant`](Self::grant) gave.
    pub(crate) async fn revoke(&self, user: &str, namespace: Option<&str>) -> Result<()> {
        let (name, delete) = (binding_name(user), DeleteParams::default());
        match namespace {
            Some(namespace) => {
                drop(Api::<RoleBinding>::namespaced(self.admin.clone(), namespace).delete(&name, &delete).await?)
            }
            None => drop(Api::<ClusterRoleBinding>::all(self.admin.clone()).delete(&name, &delete).await?),
        }
        Ok(())
    }

    pub(crate) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Creates or changes a ConfigMap.
    pub(crate) async fn put(&self, name: &str, value: &str) -> Result<ConfigMap> {
        self.put_labelled(name, value, json!({})).await
    }

    pub(crate) async fn put_labelled(&self, name: &str, value: &str, labels: Value) -> Result<ConfigMap> {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels }, "data": { "value": value } });
        Ok(self.config_maps().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?)
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.config_maps().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The ConfigMaps of the test's namespace.
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            resource: config_map(),
            namespaces: vec![self.namespace.clone()],
            label_selector: String::new(),
            field_selector: String::new(),
            representation: Representation::Full,
        }
    }
}

fn binding_name(user: &str) -> String {
    user.replace(':', "-")
}

async fn apply<K>(api: Api<K>, name: &str, object: Value) -> Result<()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Fast enough for a test, and silence never comes into play unless the test is about it.
pub(crate) fn quick() -> Options {
    Options { linger: Duration::from_millis(50), recheck: Duration::from_millis(100), ..Options::default() }
}

pub(crate) fn host(client: Client, options: Options) -> Host {
    let metrics = Metrics::default();
    let rights = Rights::new(client.clone());
    Host { informers: Informers::new(client, rights, metrics.clone(), options, Handle::current()), metrics }
}

impl Host {
    pub(crate) fn subscribe(&self, scope: &Scope) -> Result<(Subscription, Arc<Recorder>)> {
        self.subscribe_as(scope, None)
    }

    pub(crate) fn subscribe_as(&self, scope: &Scope, user: Option<Arc<str>>) -> Result<(Subscription, Arc<Recorder>)> {
        let recorder = Arc::new(Recorder::default());
        Ok((self.informers.subscribe(scope, user, recorder.clone())?, recorder))
    }

    pub(crate) fn streams(&self) -> i64 {
        self.metrics.watch_streams.get_or_create(&label(&config_map())).get()
    }

    pub(crate) fn restarts(&self, cause: &'static str) -> u64 {
        let labels = wasm_operator_cluster::metrics::RestartLabels { resource: "configmaps".to_owned(), cause };
        self.metrics.watch_restarts.get_or_create(&labels).get()
    }
}

pub(crate) fn label(resource: &Resource) -> ResourceLabel {
    ResourceLabel { resource: resource.to_string() }
}

pub(crate) fn config_map() -> Resource {
    Resource { group: String::new(), version: "v1".into(), kind: "ConfigMap".into(), plural: "configmaps".into() }
}

/// Every namespace gets this one from kube-controller-manager.
const NOT_OURS: &str = "kube-root-ca.crt";

/// A subscriber that writes down what it hears.
pub(crate) struct Recorder {
    heard: Mutex<Heard>,
    moved: watch::Sender<()>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// `*name` was there at the beginning, `+name` added, `~name` modified, `-name` deleted.
    pub(crate) words: Vec<String>,
    pub(crate) changes: Vec<Change>,
    pub(crate) states: Vec<SubscriptionState>,
}

impl Heard {
    pub(crate) fn is_synced(&self) -> bool {
        self.states.last() == Some(&SubscriptionState::Synced)
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|heard| heard == word)
    }

    /// The words, in an order that does not depend on the server's.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut words = self.words.clone();
        words.sort();
        words
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self { heard: Mutex::default(), moved: watch::channel(()).0 }
    }
}

impl Recorder {
    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().clone()
    }

    /// Waits until what was heard is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Result<Heard> {
        let mut moved = self.moved.subscribe();
        let wait = async {
            loop {
                moved.borrow_and_update();
                let heard = self.heard();
                if wanted(&heard) {
                    return heard;
                }
                let _ = moved.changed().await;
            }
        };
        timeout(PATIENCE, wait).await.map_err(|_| {
            anyhow!(
                "not within {} s: {what}; heard {:?} {:?}",
                PATIENCE.as_secs(),
                self.heard().words,
                self.heard().states
            )
        })
    }

    pub(crate) async fn synced(&self) -> Result<Heard> {
        self.until("the subscription is synced", Heard::is_synced).await
    }

    pub(crate) async fn word(&self, word: &str) -> Result<Heard> {
        self.until(word, |heard| heard.has(word)).await
    }
}

impl Subscriber for Recorder {
    fn changed(&self, change: &Change) {
        let Some(latest) = change.latest().filter(|latest| &*latest.metadata.name != NOT_OURS) else { return };
        let sign = match (&change.old, &change.new) {
            (None, _) if change.initial => '*',
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        let mut heard = self.heard.lock();
        heard.words.push(format!("{sign}{}", latest.metadata.name));
        heard.changes.push(change.clone());
        drop(heard);
        self.moved.send_replace(());
    }

    fn state(&self, state: &SubscriptionState) {
        self.heard.lock().states.push(state.clone());
        self.moved.send_replace(());
    }

    fn history_lost(&self) {}
}
