//! Starting, stopping and disturbing a control plane.

mod controllers;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::time::Instant;

use crate::clients::{self, Etcd, kubernetes_client};
use crate::flags::{self, Files};
use crate::kubeconfig::{Credential, write_kubeconfig};
use crate::pki::{self, Pki};
use crate::port::Reservation;
use crate::process::{self, Component};
use crate::workdir::WorkDir;
use crate::{Binaries, Options, Progress, State, binaries};

/// An idle machine needs 4 s. A machine that compiles on all cores beside needs many times that.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// How often a starting server is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(50);
/// Open watches keep an API server that ends gracefully; nothing is lost by killing one whose data is thrown away.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A port that was free a moment ago can be taken by another program before our server listens. Then others are tried.
const PORT_ATTEMPTS: usize = 5;

/// A control plane could not be started or disturbed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs are missing and could not be built.
    #[error(transparent)]
    Binaries(#[from] binaries::Error),
    /// A program could not be started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Certificates or kubeconfigs could not be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A directory could not be made, or no port is free.
    #[error("cannot prepare the control plane: {0}")]
    Prepare(#[from] io::Error),
    /// A client could not be made or a request failed.
    #[error(transparent)]
    Client(#[from] clients::Error),
    /// A server ended while it was starting.
    #[error("`{name}` ended while starting. The end of its log:\n{log}")]
    Ended {
        /// Which component.
        name: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// A server did not become ready in time.
    #[error("`{name}` is not ready after {} s: {reason}. The end of its log:\n{log}", START_PATIENCE.as_secs())]
    NotReady {
        /// Which component.
        name: &'static str,
        /// What it answered last.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// Asked for a user that [`Options`] did not name.
    #[error("the control plane has no user `{0}`; name it in `Options::user` before the start")]
    UnknownUser(String),
}

/// A running control plane. Dropping it ends the processes and removes the data.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: an API server without etcd hangs in its shutdown.
    kwok: Option<Component>,
    scheduler: Option<Component>,
    controller_manager: Option<Component>,
    apiserver: Option<Component>,
    etcd: Option<Component>,
    apiserver_address: SocketAddr,
    port_while_stopped: Option<Reservation>,
    etcd_url: String,
    binaries: Binaries,
    files: Files,
    kubeconfigs: BTreeMap<String, PathBuf>,
    options: Options,
    directory: WorkDir,
}

impl ControlPlane {
    /// Starts a control plane and returns when it serves. Builds the programs first when they are missing.
    pub async fn start(options: Options) -> Result<Self, Error> {
        options.build(Progress::default()).await?;
        let binaries = Binaries::control_plane(Progress::default()).await?;
        let directory = WorkDir::create()?;
        if let Some(logs) = &options.log_directory {
            std::fs::create_dir_all(logs)?;
        }
        let pki = Pki::create(&directory.path().join("pki"))?;
        let files = Files {
            authority: pki.authority(),
            serving: pki.serving(options.listen.map(|address| address.ip()))?,
            service_account: pki.service_account_keys()?,
            tokens: directory.path().join("pki/tokens.csv"),
        };
        let mut control_plane = Self {
            kwok: None,
            scheduler: None,
            controller_manager: None,
            apiserver: None,
            etcd: None,
            apiserver_address: loopback(0),
            port_while_stopped: None,
            etcd_url: String::new(),
            binaries,
            files,
            kubeconfigs: BTreeMap::new(),
            options,
            directory,
        };
        control_plane.start_etcd().await?;
        let tokens = control_plane.write_tokens()?;
        control_plane.start_first_apiserver(&pki).await?;
        control_plane.write_user_kubeconfigs(&tokens)?;
        control_plane.start_controllers(&pki).await?;
        control_plane.start_nodes(&pki).await?;
        Ok(control_plane)
    }

    /// `https://127.0.0.1:<port>`, or what [`Options::listen`] says. Stays the same when the API server restarts.
    pub fn apiserver_url(&self) -> String {
        format!("https://{}", self.apiserver_address)
    }

    /// `http://127.0.0.1:<port>`
    pub fn etcd_url(&self) -> &str {
        &self.etcd_url
    }

    /// Kubeconfig of the administrator (group `system:masters`).
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// Kubeconfig of a user from [`Options`].
    pub fn kubeconfig_for(&self, user: &str) -> Result<&Path, Error> {
        self.kubeconfigs.get(user).map(PathBuf::as_path).ok_or_else(|| Error::UnknownUser(user.to_owned()))
    }

    /// A client with the administrator's rights.
    pub async fn client(&self) -> Result<Client, Error> {
        Ok(kubernetes_client(&self.kubeconfig()).await?)
    }

    /// A client with the rights of a user from [`Options`].
    pub async fn client_for(&self, user: &str) -> Result<Client, Error> {
        Ok(kubernetes_client(self.kubeconfig_for(user)?).await?)
    }

    /// Where data, certificates, kubeconfigs and logs are. Goes away with the control plane.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Log file of a component, such as `kube-apiserver`.
    pub fn log_file(&self, component: &str) -> PathBuf {
        let directory = self.options.log_directory.clone().unwrap_or_else(|| self.directory.path().join("log"));
        directory.join(format!("{component}.log"))
    }

    /// What other processes need to know.
    pub fn state(&self) -> State {
        let running = [&self.etcd, &self.apiserver, &self.controller_manager, &self.scheduler, &self.kwok];
        let running = running.into_iter().flatten();
        State {
            apiserver_url: self.apiserver_url(),
            etcd_url: self.etcd_url.clone(),
            kubeconfig: self.kubeconfig(),
            kubeconfigs: self.kubeconfigs.clone(),
            logs: running.clone().map(|component| (component.name().to_owned(), component.log().to_owned())).collect(),
            pids: running.map(|component| (component.name().to_owned(), component.id())).collect(),
        }
    }

    /// Ends the API server; etcd and its data stay. Clients are refused until
    /// [`start_apiserver`](Self::start_apiserver).
    pub async fn stop_apiserver(&mut self) -> Result<(), Error> {
        if let Some(mut apiserver) = self.apiserver.take() {
            apiserver.stop(STOP_GRACE).await;
            self.port_while_stopped = self.hold_port()?;
        }
        Ok(())
    }

    /// Ends the API server without a chance to say goodbye: its connections are cut.
    pub fn kill_apiserver(&mut self) -> Result<(), Error> {
        if let Some(mut apiserver) = self.apiserver.take() {
            apiserver.kill();
            self.port_while_stopped = self.hold_port()?;
        }
        Ok(())
    }

    /// Starts the API server again, on the same port and data, and returns when it is ready.
    pub async fn start_apiserver(&mut self) -> Result<(), Error> {
        if self.apiserver.is_none() {
            self.port_while_stopped = None;
            self.apiserver = Some(self.spawn_apiserver()?);
        }
        self.wait_for_apiserver().await
    }

    /// [`stop_apiserver`](Self::stop_apiserver), then [`start_apiserver`](Self::start_apiserver).
    pub async fn restart_apiserver(&mut self) -> Result<(), Error> {
        self.stop_apiserver().await?;
        self.start_apiserver().await
    }

    /// Makes etcd forget all history before now; returns the revision from which on history is kept. An API server
    /// still answers resumes from its watch cache: start without it ([`Options::without_watch_cache`]) or restart the
    /// API server to see 410.
    pub async fn compact_etcd(&self) -> Result<u64, Error> {
        Ok(Etcd::new(&self.etcd_url)?.compact().await?)
    }

    /// A copy of etcd's data, as of a cluster that is backed up. The API server and etcd are stopped for it and started
    /// again.
    pub async fn back_up_etcd(&mut self) -> Result<EtcdBackup, Error> {
        self.stop_etcd().await?;
        let backup = tempfile::tempdir()?;
        copy_files(&self.etcd_directory(), backup.path())?;
        self.start_etcd().await?;
        self.start_apiserver().await?;
        Ok(EtcdBackup(backup))
    }

    /// Puts etcd back to the state of a backup: objects and resource versions are those of then, and versions that have
    /// been given out since are given out again.
    pub async fn restore_etcd(&mut self, backup: &EtcdBackup) -> Result<(), Error> {
        self.stop_etcd().await?;
        let data = self.etcd_directory();
        std::fs::remove_dir_all(&data)?;
        copy_files(backup.0.path(), &data)?;
        self.start_etcd().await?;
        self.start_apiserver().await
    }

    /// The API server goes first: without etcd it hangs in its shutdown.
    async fn stop_etcd(&mut self) -> Result<(), Error> {
        self.stop_apiserver().await?;
        if let Some(mut etcd) = self.etcd.take() {
            etcd.stop(STOP_GRACE).await;
        }
        Ok(())
    }

    fn etcd_directory(&self) -> PathBuf {
        self.directory.path().join("etcd")
    }

    /// Ends everything in order. Dropping does the same without the grace.
    pub async fn stop(mut self) {
        for component in
            [&mut self.kwok, &mut self.scheduler, &mut self.controller_manager, &mut self.apiserver, &mut self.etcd]
        {
            if let Some(mut component) = component.take() {
                component.stop(STOP_GRACE).await;
            }
        }
    }

    async fn start_etcd(&mut self) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let (client, peer) = (Reservation::any()?, Reservation::any()?);
            let (client_port, peer_port) = (client.port(), peer.port());
            drop((client, peer));
            let mut arguments = flags::etcd(&self.etcd_directory(), client_port, peer_port);
            arguments.extend(self.options.extra_etcd_args.iter().cloned());
            let mut etcd = self.component("etcd", &arguments)?;
            let url = format!("http://127.0.0.1:{client_port}");
            let health = Etcd::new(&url)?;
            match ready(&mut etcd, || health.healthy()).await {
                Err(error) if attempt < PORT_ATTEMPTS && port_was_taken(&error) => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => {
                    (self.etcd, self.etcd_url) = (Some(etcd), url);
                    return Ok(());
                }
            }
        }
    }

    async fn start_first_apiserver(&mut self, pki: &Pki) -> Result<(), Error> {
        let admin = pki.client("admin", "admin", &["system:masters"])?;
        let mut attempt = 1;
        loop {
            self.apiserver_address = match self.options.listen {
                Some(address) => address,
                None => loopback(Reservation::any()?.port()),
            };
            self.write_kubeconfig(&self.kubeconfig(), "admin", &Credential::Certificate(&admin))?;
            self.apiserver = Some(self.spawn_apiserver()?);
            match self.wait_for_apiserver().await {
                Err(error) if attempt < PORT_ATTEMPTS && port_was_taken(&error) => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn spawn_apiserver(&self) -> Result<Component, Error> {
        let mut arguments = flags::apiserver(self.apiserver_address, &self.etcd_url, &self.files);
        arguments.extend(self.options.extra_apiserver_args.iter().cloned());
        self.component("kube-apiserver", &arguments)
    }

    async fn wait_for_apiserver(&mut self) -> Result<(), Error> {
        let client = self.client().await?;
        let Some(apiserver) = &mut self.apiserver else { return Ok(()) };
        ready(apiserver, || async {
            client.request_text(Request::get("/readyz").body(Vec::new())?).await?;
            Ok(())
        })
        .await
    }

    /// Only a port that was taken at random could be taken by another program.
    fn hold_port(&self) -> io::Result<Option<Reservation>> {
        let random = self.options.listen.is_none();
        random.then(|| Reservation::hold(self.apiserver_address.port())).transpose()
    }

    fn component(&self, name: &'static str, arguments: &[String]) -> Result<Component, Error> {
        Ok(Component::start(name, &self.binaries.program(name), arguments, &self.log_file(name))?)
    }

    fn write_kubeconfig(&self, path: &Path, user: &str, credential: &Credential<'_>) -> Result<(), Error> {
        Ok(write_kubeconfig(path, &self.apiserver_url(), &self.files.authority.certificate, user, credential)?)
    }

    /// The API server reads the file once, so all users are known from the start.
    fn write_tokens(&self) -> Result<Vec<String>, Error> {
        let tokens = self.options.users.iter().map(|_| random_token()).collect::<io::Result<Vec<_>>>()?;
        let line = |(user, token): (&crate::User, &String)| {
            format!("{token},{},{},\"{}\"\n", user.name, user.name, user.groups.join(","))
        };
        let lines: String = self.options.users.iter().zip(&tokens).map(line).collect();
        pki::write(&self.files.tokens, &lines)?;
        Ok(tokens)
    }

    fn write_user_kubeconfigs(&mut self, tokens: &[String]) -> Result<(), Error> {
        for (index, (user, token)) in self.options.users.iter().zip(tokens).enumerate() {
            // Numbered: user names may hold characters that file names may not.
            let path = self.directory.path().join(format!("user-{index}.kubeconfig"));
            self.write_kubeconfig(&path, &user.name, &Credential::Token(token))?;
            self.kubeconfigs.insert(user.name.clone(), path);
        }
        Ok(())
    }
}

/// What [`ControlPlane::back_up_etcd`] made. The copy goes away with it.
#[derive(Debug)]
pub struct EtcdBackup(tempfile::TempDir);

/// Copies a directory of files and directories with the rights that etcd wants.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Asks until `check` succeeds, the process ends or patience does.
async fn ready<F, O>(component: &mut Component, mut check: F) -> Result<(), Error>
where
    F: FnMut() -> O,
    O: Future<Output = Result<(), clients::Error>>,
{
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let reason = match tokio::time::timeout_at(deadline, check()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if component.exit_status().is_some() {
            return Err(Error::Ended { name: component.name(), log: component.log_tail() });
        }
        if Instant::now() >= deadline {
            return Err(Error::NotReady { name: component.name(), reason, log: component.log_tail() });
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

fn port_was_taken(error: &Error) -> bool {
    matches!(error, Error::Ended { log, .. } if log.contains("address already in use"))
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
