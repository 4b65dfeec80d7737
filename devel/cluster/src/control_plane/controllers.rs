//! What acts on the cluster beside the API server: scheduler, controller manager, and the kubelets that kwok simulates.

use std::path::PathBuf;
use std::process::Command;

use http::Request;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use super::{ControlPlane, Error, PORT_ATTEMPTS, loopback, port_was_taken, ready};
use crate::kubeconfig::Credential;
use crate::pki::Pki;
use crate::port::Reservation;
use crate::process::Component;
use crate::{Binaries, Progress, clients, flags, nodes};

impl ControlPlane {
    pub(super) async fn start_controllers(&mut self, pki: &Pki) -> Result<(), Error> {
        if self.options.scheduler || !self.options.nodes.is_empty() {
            let kubeconfig = self.component_kubeconfig(pki, "kube-scheduler", "system:kube-scheduler", &[])?;
            self.scheduler = Some(self.component("kube-scheduler", &flags::scheduler(&kubeconfig))?);
        }
        if self.options.controller_manager {
            let kubeconfig =
                self.component_kubeconfig(pki, "kube-controller-manager", "system:kube-controller-manager", &[])?;
            let arguments = flags::controller_manager(&kubeconfig, &self.files);
            let mut controller_manager = self.component("kube-controller-manager", &arguments)?;
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
            // The first thing that its controllers make, and that pods need.
            ready(&mut controller_manager, || async { Ok(accounts.get("default").await.map(drop)?) }).await?;
            self.controller_manager = Some(controller_manager);
        }
        Ok(())
    }

    /// Starts kwok and creates the nodes; returns when pods can be scheduled on all of them.
    pub(super) async fn start_nodes(&mut self, pki: &Pki) -> Result<(), Error> {
        if self.options.nodes.is_empty() {
            return Ok(());
        }
        let binaries = Binaries::kwok(Progress::default()).await?;
        let client = self.client().await?;
        let Some(apiserver) = &mut self.apiserver else { return Ok(()) };
        nodes::install_log_kinds(&client).await?;
        ready(apiserver, || nodes::log_kinds_are_served(&client)).await?;
        // It does the work of the kubelets of all nodes and deletes pods, for which there is no built-in role.
        let kubeconfig = self.component_kubeconfig(pki, "kwok", "kwok", &["system:masters"])?;
        let configuration = self.directory.path().join("kwok.yaml");
        std::fs::write(&configuration, nodes::CONFIGURATION)?;
        let mut attempt = 1;
        let mut kwok = loop {
            let address = loopback(Reservation::any()?.port());
            let mut command = Command::new(binaries.program("kwok"));
            // It would read a configuration in the home directory as well.
            command
                .args(flags::kwok(&kubeconfig, &configuration, address, &self.files))
                .env("HOME", self.directory.path());
            let mut kwok = Component::start_command("kwok", command, &self.log_file("kwok"))?;
            let health = clients::http_client(&format!("http://{address}"))?;
            let healthy = ready(&mut kwok, || async {
                health.request_text(Request::get("/healthz").body(Vec::new())?).await?;
                Ok(())
            });
            match healthy.await {
                Err(error) if attempt < PORT_ATTEMPTS && port_was_taken(&error) => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => break kwok,
            }
        };
        for node in &self.options.nodes {
            node.create(&client).await?;
        }
        let wanted = self.options.nodes.len();
        ready(&mut kwok, || async {
            let ready = nodes::ready_nodes(&client).await?;
            if ready == wanted { Ok(()) } else { Err(clients::Error::Nodes { ready, wanted }) }
        })
        .await?;
        self.kwok = Some(kwok);
        Ok(())
    }

    fn component_kubeconfig(&self, pki: &Pki, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf, Error> {
        let pair = pki.client(name, user, groups)?;
        let path = self.directory.path().join(format!("{name}.kubeconfig"));
        self.write_kubeconfig(&path, user, &Credential::Certificate(&pair))?;
        Ok(path)
    }
}
