use std::net::SocketAddr;
use std::path::PathBuf;

use crate::nodes::Node;
use crate::{Binaries, Progress, binaries};

/// A user of the API server that authenticates with a bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User name as RBAC sees it. `system:serviceaccount:<namespace>:<name>` makes bindings to that ServiceAccount
    /// apply.
    pub name: String,
    /// Groups beside `system:authenticated`, which the API server adds.
    pub groups: Vec<String>,
}

impl User {
    /// A user without groups.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), groups: Vec::new() }
    }

    /// A user that RBAC takes for the ServiceAccount `namespace`/`name`, with the groups that such an account has.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        }
    }

    /// Adds a group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }
}

/// What a [`ControlPlane`](crate::ControlPlane) consists of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Runs kube-controller-manager: garbage collection, namespaces, service accounts, workloads. On by default.
    pub controller_manager: bool,
    /// Runs kube-scheduler. Off by default: without nodes there is nothing to schedule on. Runs with `nodes`, too.
    pub scheduler: bool,
    /// Nodes that kwok simulates. None by default, and then kwok is neither built nor started. Nodes that are created
    /// later through the API are simulated as well.
    pub nodes: Vec<Node>,
    /// Where kube-apiserver listens, for pods on this machine. None: on 127.0.0.1 and a free port, where pods cannot
    /// reach it.
    pub listen: Option<SocketAddr>,
    /// Users beside the administrator.
    pub users: Vec<User>,
    /// Further flags of kube-apiserver. They come last, so they win.
    pub extra_apiserver_args: Vec<String>,
    /// Further flags of etcd.
    pub extra_etcd_args: Vec<String>,
    /// Where log files go. By default they live and end with the data directory.
    pub log_directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controller_manager: true,
            scheduler: false,
            nodes: Vec::new(),
            listen: None,
            users: Vec::new(),
            extra_apiserver_args: Vec::new(),
            extra_etcd_args: Vec::new(),
            log_directory: None,
        }
    }
}

impl Options {
    /// Builds the programs that these options need, where they are missing. [`ControlPlane::start`] does so as well;
    /// who calls this before it knows how long the start itself takes.
    ///
    /// [`ControlPlane::start`]: crate::ControlPlane::start
    pub async fn build(&self, progress: Progress) -> Result<(), binaries::Error> {
        Binaries::control_plane(progress).await?;
        if !self.nodes.is_empty() {
            Binaries::kwok(progress).await?;
        }
        Ok(())
    }

    /// Adds a user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Leaves out kube-controller-manager, for tests that need only the API: saves a second of start-up and 120 MB.
    #[must_use]
    pub fn without_controller_manager(mut self) -> Self {
        self.controller_manager = false;
        self
    }

    /// Runs kube-scheduler too.
    #[must_use]
    pub fn with_scheduler(mut self) -> Self {
        self.scheduler = true;
        self
    }

    /// Simulates a node.
    #[must_use]
    pub fn node(mut self, node: Node) -> Self {
        self.nodes.push(node);
        self
    }

    /// Lets kube-apiserver listen here.
    #[must_use]
    pub fn listening_on(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Switches the API server's watch cache off, so that lists and watches see etcd itself and a resume from before a
    /// compaction gets 410.
    #[must_use]
    pub fn without_watch_cache(self) -> Self {
        self.apiserver_arg("--watch-cache=false")
    }

    /// Adds a flag of kube-apiserver.
    #[must_use]
    pub fn apiserver_arg(mut self, flag: impl Into<String>) -> Self {
        self.extra_apiserver_args.push(flag.into());
        self
    }

    /// Keeps the log files in `directory`, which outlives the control plane.
    #[must_use]
    pub fn log_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.log_directory = Some(directory.into());
        self
    }
}
