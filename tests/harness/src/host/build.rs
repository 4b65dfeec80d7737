//! Configuring and starting a host.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::process::{Host, Setup};
use crate::config::{Guest, documents};
use crate::credential::{server_of, service_account_token, write_kubeconfig};
use crate::crossing::Crossing;
use crate::logs::Log;
use crate::paths::logs_directory;
use crate::proxy::Proxy;
use crate::space::Space;

/// The host's ServiceAccount, as the Deployment in `devel` names it.
const ACCOUNT: &str = "wasm-operator";

/// A host that is still to be started.
#[must_use]
pub struct HostBuilder<'a> {
    space: &'a Space,
    name: String,
    guests: Vec<Guest>,
    /// `https://...`, or `http://...` of a crossing.
    server: Option<String>,
    cache: Option<PathBuf>,
    arguments: Vec<String>,
    launcher: Vec<String>,
    rbac_arguments: Vec<String>,
    rights: bool,
    shown: bool,
    denied: Vec<(String, String)>,
}

impl<'a> HostBuilder<'a> {
    pub(crate) fn new(space: &'a Space) -> Self {
        Self {
            space,
            name: "host".to_owned(),
            guests: Vec::new(),
            server: None,
            cache: None,
            arguments: Vec::new(),
            launcher: Vec::new(),
            rbac_arguments: Vec::new(),
            rights: true,
            shown: true,
            denied: Vec::new(),
        }
    }

    /// Another name than `host`, for a second host of the same test. It is that of its namespace and log, too.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Adds a guest to the configuration.
    pub fn guest(mut self, guest: Guest) -> Self {
        self.guests.push(guest);
        self
    }

    /// Adds guests to the configuration.
    pub fn guests(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        self.guests.extend(guests);
        self
    }

    /// Reaches the API server through this proxy.
    pub fn through(mut self, proxy: &Proxy) -> Self {
        self.server = Some(format!("https://{}", proxy.address()));
        self
    }

    /// Reaches the API server across this. Its log is not shown when the test fails: there are many such hosts.
    pub(crate) fn across(mut self, crossing: &Crossing) -> Self {
        self.server = Some(format!("http://{}", crossing.address()));
        self.shown = false;
        self
    }

    /// Keeps compiled components here, not in the cache that the hosts of this run share.
    pub fn cache(mut self, directory: &Path) -> Self {
        self.cache = Some(directory.to_owned());
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts the host by a command that executes what follows it, such as `env`.
    pub fn launched_by(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.launcher.extend(words);
        self
    }

    /// Lets the host itself list and watch cluster-wide what its guests watch in some namespaces.
    pub fn watching_everywhere(self) -> Self {
        self.rbac_argument("--cluster-wide-watches")
    }

    /// Adds an argument of `wasm-operator rbac`, whose output gives the host its rights.
    pub fn rbac_argument(mut self, argument: &str) -> Self {
        self.rbac_arguments.push(argument.to_owned());
        self
    }

    /// Gives neither the host nor its guests any right.
    pub fn without_rights(mut self) -> Self {
        self.rights = false;
        self
    }

    /// Leaves out the roles of a guest in a namespace: the configuration grants what the API server denies.
    pub fn denying(mut self, guest: &str, namespace: &str) -> Self {
        self.denied.push((format!("guest-{guest}"), namespace.to_owned()));
        self
    }

    /// Writes the configuration, gives the host an account with the rights for it, and starts it. Returns when its admin endpoint answers.
    pub async fn start(self) -> Result<Host> {
        let mut host = self.prepare().await?;
        host.start().await?;
        Ok(host)
    }

    /// Does everything that comes before the start, compiling the components included.
    pub async fn prepare(self) -> Result<Host> {
        let space = self.space;
        let namespace = space.namespace(&self.name).await?;
        let directory = space.directory().join(&self.name);
        std::fs::create_dir_all(&directory)?;
        let token = service_account_token(&space.client(), &namespace, ACCOUNT).await?;
        let admin = space.cluster().kubeconfig();
        let server = match self.server {
            Some(server) => server,
            None => format!("https://{}", server_of(admin)?),
        };
        let kubeconfig = directory.join("kubeconfig.json");
        write_kubeconfig(&kubeconfig, admin, &server, &token)?;
        let log = Log::create(&directory.join("host.log"))?;
        if self.shown {
            space.keep(&log);
        }
        let cache = self.cache.map_or_else(|| logs_directory().map(|logs| logs.join("cache")), Ok)?;
        let setup = Setup {
            client: space.client(),
            user: format!("system:serviceaccount:{namespace}:{ACCOUNT}"),
            namespace,
            config: directory.join("wasm_config.yaml"),
            kubeconfig,
            cache,
            arguments: self.arguments,
            launcher: self.launcher,
            denied: self.denied,
            rbac_arguments: self.rbac_arguments,
        };
        let mut host = Host::new(setup, log);
        let text = documents(&self.guests)?;
        if self.rights {
            host.configure_text(&text).await?;
        } else {
            host.write_config(&text)?;
        }
        Ok(host)
    }
}
