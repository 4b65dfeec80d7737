//! What belongs to one test: its namespaces, its files, its hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::host::HostBuilder;
use crate::logs::Log;
use crate::paths::logs_directory;

/// Enough to know the test by; leaves room for suffixes in the 63 characters of a namespace.
const NAME_CHARACTERS: usize = 36;

/// The stage of one test.
pub struct Space {
    name: String,
    cluster: Cluster,
    client: Client,
    audit: Audit,
    directory: PathBuf,
    /// Of this space and of those that the test made beside it.
    logs: Arc<Mutex<Vec<Log>>>,
}

impl Space {
    /// For the test of this name (`module::what_happens`), on this control plane.
    pub async fn new(test: &str, cluster: &Cluster) -> Result<Self> {
        let base = test.rsplit("::").next().unwrap_or(test).replace('_', "-").to_lowercase();
        let base: String = base.chars().take(NAME_CHARACTERS).collect();
        let name = base.trim_matches('-').to_owned();
        let directory = logs_directory()?.join(&name);
        std::fs::create_dir_all(&directory)?;
        let space = Self {
            name,
            client: cluster.client().await?,
            audit: cluster.audit(),
            cluster: cluster.clone(),
            directory,
            logs: Arc::default(),
        };
        Ok(space)
    }

    /// The same test on a control plane of its own.
    pub async fn on(&self, cluster: &Cluster) -> Result<Self> {
        Ok(Self { logs: self.logs.clone(), ..Self::new(&self.name, cluster).await? })
    }

    /// The control plane.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What the API server logged since the test began.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// A directory of this test, kept until the next run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the test's namespace with this suffix, whether it exists or not.
    pub fn name_of(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Creates the namespace with this suffix, if need be.
    pub async fn namespace(&self, suffix: &str) -> Result<String> {
        let name = self.name_of(suffix);
        let namespaces: Api<Namespace> = Api::all(self.client());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        match namespaces.create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => drop(created?),
        }
        Ok(name)
    }

    /// The ConfigMaps of a namespace, with the administrator's rights.
    pub fn config_maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client(), namespace)
    }

    /// Gives the containers of this name, in pods of this namespace, these lines as their log; for control planes with
    /// simulated nodes. kwok reads it from a file of this test.
    pub async fn set_container_log(&self, namespace: &str, container: &str, lines: &[&str]) -> Result<()> {
        let file = self.directory.join(format!("{namespace}.{container}.log"));
        Ok(wasm_operator_devel::set_container_log(&self.client, &file, namespace, container, lines).await?)
    }

    /// A host of this test that is still to be configured.
    pub fn host(&self) -> HostBuilder<'_> {
        HostBuilder::new(self)
    }

    pub(crate) fn keep(&self, log: &Log) {
        self.logs.lock().push(log.clone());
    }

    /// The ends of the logs of the test's hosts.
    pub(crate) fn report(&self) -> String {
        self.logs.lock().iter().map(Log::report).collect()
    }
}
