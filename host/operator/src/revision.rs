//! One version of a guest: a component with its configuration, permissions and identity, ready to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasm_operator_cluster::gateway::{Authorities, GuestAccess, GuestGateway, IdentityError, InvalidAccess};
use wasm_operator_cluster::informer::{Scope, Subscription, SubscriptionState};
use wasm_operator_config::{Approval, ApprovalError, GrantError, GuestSpec};
use wasm_operator_core::description::{self, Description};
use wasm_operator_core::dispatch::GuestId;
use wasm_operator_core::index::FieldIndex;
use wasm_operator_core::permission::{InvalidRule, Permissions, Right, Rule};
use wasm_operator_core::request::Verb;
use wasm_operator_core::watch::{InvalidWatch, Mapping, Watch, validate_controller};
use wasm_operator_engine::{Artifact, CallError, GuestLogs, GuestSettings, LoadError, PrepareError, World};

use crate::authorities::{self, AuthoritiesError};
use crate::guest_log::{GuestLog, within};
use crate::host::Host;
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::program;
use crate::subscriber::{Controller, WatchSubscriber};

/// Why a guest cannot run as it is configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevisionError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Describe(#[from] CallError),
    #[error("controller `{controller}`: {source}")]
    Watch { controller: String, source: InvalidWatch },
    #[error("the description is not usable: {0}")]
    Description(String),
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error("`permissions`: {0}")]
    Rule(#[from] InvalidRule),
    #[error(
        "controller `{controller}` watches `{resource}` {place}, and the guest is not granted to; to allow it, add to its \
         `permissions`: {rule}"
    )]
    WatchNotGranted { controller: String, resource: String, place: String, rule: String },
    #[error(transparent)]
    Access(#[from] InvalidAccess),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    #[error(
        "`permissions: as-requested` has no meaning here: the component is a program of the world `operator`, which asks for \
         nothing; list under `permissions` the rules that it needs"
    )]
    AsRequested,
    #[error("the host is stopping")]
    Stopping,
}

impl RevisionError {
    /// Whether trying again soon, without any change, can help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Prepare(error) => error.is_transient(),
            Self::Load(error) => error.is_stale(),
            Self::Identity(error) => matches!(error, IdentityError::Unanswered { .. }),
            _ => false,
        }
    }
}

impl Watching {
    /// How its watches are doing.
    pub(crate) fn states(&self) -> impl Iterator<Item = SubscriptionState> {
        self.subscribers.iter().map(|subscriber| subscriber.latest_state())
    }
}

impl RevisionError {
    /// The stable label for metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "compile",
            Self::Load(_) => "load",
            Self::Describe(error) => error.kind(),
            Self::Identity(_) => "identity",
            Self::Watch { .. } | Self::Description(_) => "describe",
            Self::Grant(_)
            | Self::Approval(_)
            | Self::Rule(_)
            | Self::WatchNotGranted { .. }
            | Self::AsRequested
            | Self::Access(_) => "permissions",
            Self::Authorities(_) => "authorities",
            Self::Stopping => "stopping",
        }
    }

    /// The error for an Event. What quotes the guest is left out: it must not speak through the host's Events.
    pub(crate) fn note(&self, guest: &str) -> String {
        match self {
            Self::Describe(error) => format!("guest `{guest}` cannot be described: {}", error.summary()),
            Self::Watch { .. } | Self::Description(_) | Self::WatchNotGranted { .. } | Self::Grant(_) => {
                format!(
                    "guest `{guest}` does not fit its configuration; see the host's log or `wasm-operator validate`"
                )
            }
            error => format!("guest `{guest}`: {error}"),
        }
    }
}

/// Device, inode, size, and the time of the last change in seconds and nanoseconds.
type FileIdentity = (u64, u64, u64, i64, i64);

/// What tells one state of a guest's files from another without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    wasm: PathBuf,
    identities: Vec<Option<FileIdentity>>,
}

impl Fingerprint {
    pub(crate) fn of(spec: &GuestSpec, directory: &Path) -> Self {
        let identity = |path: PathBuf| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Self { wasm: spec.wasm_path(directory), identities: spec.files(directory).map(identity).collect() }
    }
}

/// Why a version does not run, and of which component.
pub(crate) struct Refusal {
    pub(crate) files: Fingerprint,
    pub(crate) error: Box<RevisionError>,
}

/// A version that passed every check. It changes nothing until it is activated.
pub(crate) struct Revision {
    spec: GuestSpec,
    fingerprint: Fingerprint,
    description: Description,
    artifact: Artifact,
    settings: GuestSettings,
    permissions: Permissions,
    user: String,
    authorities: Option<Authorities>,
}

/// A version that runs.
pub(crate) struct Active {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) gateway: Arc<GuestGateway>,
    way: Way,
    pub(crate) controllers: BTreeMap<Arc<str>, Watching>,
}

/// How a version runs: as its component's world says.
enum Way {
    /// Called when there is work.
    Controller(Box<Pool>),
    /// With a loop of its own.
    Program(Arc<program::Parts>),
}

impl Active {
    /// The instances of a controller; None for a program.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        match &self.way {
            Way::Controller(pool) => Some(pool),
            Way::Program(_) => None,
        }
    }

    /// What a program runs with; None for a controller.
    pub(crate) fn program(&self) -> Option<&Arc<program::Parts>> {
        match &self.way {
            Way::Controller(_) => None,
            Way::Program(parts) => Some(parts),
        }
    }
}

/// The subscriptions of one controller.
pub(crate) struct Watching {
    pub(crate) primary: Subscription,
    /// Held so that they go on.
    _others: Vec<Subscription>,
    subscribers: Vec<Arc<WatchSubscriber>>,
}

/// The part of a guest's configuration that the engine needs, and that its description may depend on.
pub(crate) fn settings(spec: &GuestSpec) -> GuestSettings {
    GuestSettings {
        name: spec.name.as_str().into(),
        env: spec.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect(),
        args: spec.args.clone(),
        limits: spec.limits.clone(),
    }
}

impl Revision {
    /// Compiles and describes the component, resolves what it may do, and has the API server confirm its identity.
    pub(crate) async fn prepare(host: &Arc<Host>, id: GuestId, spec: GuestSpec) -> Result<Self, Refusal> {
        // Before the files are read: a later change of one is one more change.
        let fingerprint = Fingerprint::of(&spec, &host.options.directory);
        let files = fingerprint.clone();
        let revision = Self::of(host, id, spec, fingerprint).await;
        revision.map_err(|error| Refusal { files, error: error.into() })
    }

    async fn of(
        host: &Arc<Host>,
        id: GuestId,
        spec: GuestSpec,
        fingerprint: Fingerprint,
    ) -> Result<Self, RevisionError> {
        let artifact = host.engine.prepare(&fingerprint.wasm).await?;
        let settings = settings(&spec);
        let description = match artifact.world() {
            World::Controller => {
                let description = describe(host, id, &artifact, &settings).await?;
                check(&description)?;
                description
            }
            World::Operator if spec.permissions.follows_component() => return Err(RevisionError::AsRequested),
            World::Operator => Description::default(),
        };
        let rules = grant(host, &spec, &artifact, &description)?;
        let permissions = Permissions::new(rules, host.options.host_namespace.clone())?;
        check_watches(&description, &permissions)?;
        let user = spec.identity(host.identity_namespace()).to_string();
        host.gateway.verify_identity(&user).await?;
        let authorities = authorities::read(&spec, &host.options.directory)?;
        Ok(Self { spec, fingerprint, description, artifact, settings, permissions, user, authorities })
    }

    /// Takes over: from now on the guest has this version's rights, and changes are marked in its queue.
    pub(crate) fn activate(self, host: &Host, id: GuestId) -> Result<Active, Refusal> {
        let files = self.fingerprint.clone();
        self.start(host, id).map_err(|error| Refusal { files, error: error.into() })
    }

    fn start(self, host: &Host, id: GuestId) -> Result<Active, RevisionError> {
        let gateway = host.gateway.guest(GuestAccess {
            name: self.settings.name.clone(),
            user: self.user.clone(),
            permissions: self.permissions.clone(),
            allowed_hosts: self.spec.allowed_hosts.clone(),
            authorities: self.authorities.clone(),
            limits: self.spec.limits.clone(),
            shared_watches: self.artifact.world() == World::Operator,
            adopt_field_manager: self.spec.adopt_field_manager.clone(),
        })?;
        let controllers = self.watch(host, id, &gateway)?;
        // Not earlier: who was removed while its component was compiled must not have a series again.
        if let Some(took) = self.artifact.compile_time() {
            host.metrics.compiled(&self.spec.name, took);
        }
        let http = Arc::new(Outgoing { gateway: gateway.clone(), scheduler: host.scheduler.clone(), guest: id });
        let logs = GuestLogs::new(Arc::new(GuestLog), &self.spec.limits);
        let Self { artifact, settings, fingerprint, .. } = self;
        let (engine, components) = (host.engine.clone(), host.components.clone());
        let way = match artifact.world() {
            World::Controller => Way::Controller(Pool::new(engine, components, artifact, settings, http, logs).into()),
            World::Operator => {
                Way::Program(program::Parts::new(engine, components, artifact, settings, http, logs).into())
            }
        };
        Ok(Active { fingerprint, gateway, way, controllers })
    }

    fn watch(
        &self,
        host: &Host,
        id: GuestId,
        gateway: &Arc<GuestGateway>,
    ) -> Result<BTreeMap<Arc<str>, Watching>, RevisionError> {
        self.description
            .controllers
            .iter()
            .map(|controller| {
                Ok((controller.name.as_str().into(), self.watch_controller(host, id, gateway, controller)?))
            })
            .collect()
    }

    fn watch_controller(
        &self,
        host: &Host,
        guest: GuestId,
        gateway: &Arc<GuestGateway>,
        description: &description::Controller,
    ) -> Result<Watching, RevisionError> {
        let field = |watch: &Watch| match &watch.mapping {
            Mapping::Field(path) => Some(path.clone()),
            _ => None,
        };
        let by_owner = description.watches.iter().any(|watch| matches!(watch.mapping, Mapping::Owner(_)));
        let controller = Arc::new(Controller {
            scheduler: host.scheduler.clone(),
            gateway: gateway.clone(),
            guest,
            guest_name: self.spec.name.as_str().into(),
            name: description.name.as_str().into(),
            namespaced: AtomicBool::new(true),
            cross_namespace: self.spec.allow_cross_namespace_mapping,
            index: Mutex::new(FieldIndex::new(description.watches.iter().filter_map(field))),
            uids: by_owner.then(Mutex::default),
        });
        let mut subscribers = Vec::new();
        let mut subscribe = |watch: &Watch, is_primary| {
            let subscriber = Arc::new(WatchSubscriber::new(controller.clone(), watch.clone(), is_primary));
            subscribers.push(subscriber.clone());
            let subscription =
                host.informers.subscribe(&Scope::from(watch), Some(self.user.as_str().into()), subscriber);
            subscription.map_err(|error| RevisionError::Watch {
                controller: description.name.clone(),
                source: InvalidWatch::Selector(error),
            })
        };
        // The primary first, so that mappings by field and owner find what they map to.
        let primary = subscribe(&description.primary, true)?;
        let others = description.watches.iter().map(|watch| subscribe(watch, false)).collect::<Result<_, _>>()?;
        Ok(Watching { primary, _others: others, subscribers })
    }
}

/// The kept description, or the guest's own words. Guests run on the workers only.
async fn describe(
    host: &Arc<Host>,
    id: GuestId,
    artifact: &Artifact,
    settings: &GuestSettings,
) -> Result<Description, RevisionError> {
    if let Some(description) = host.engine.cached_description(artifact, settings) {
        return Ok(description);
    }
    let (component, _) = host.components.load(&host.engine, artifact)?;
    let (answer, description) = oneshot::channel();
    let own_settings = settings.clone();
    let logs = GuestLogs::new(Arc::new(GuestLog), &settings.limits);
    let span = tracing::info_span!("describe", guest = &*settings.name);
    host.workers.submit(id, move || {
        let describe = async move {
            // Nobody waits any more if the host is stopping.
            let _ = answer.send(component.describe(&own_settings, &logs).await);
        };
        within(span, describe)
    });
    let description = description.await.map_err(|_| RevisionError::Stopping)??;
    if let Err(error) = host.engine.store_description(artifact, settings, &description) {
        tracing::warn!(guest = &*settings.name, %error, "cannot keep the guest's description; it is asked again at the next start");
    }
    Ok(description)
}

fn check(description: &Description) -> Result<(), RevisionError> {
    let mut names = BTreeSet::new();
    if description.controllers.is_empty() {
        return Err(RevisionError::Description("it has no controller".to_owned()));
    }
    for controller in &description.controllers {
        let fault = |source| RevisionError::Watch { controller: controller.name.clone(), source };
        if !names.insert(&controller.name) {
            return Err(RevisionError::Description(format!("two controllers are named `{}`", controller.name)));
        }
        validate_controller(&controller.primary, &controller.watches).map_err(fault)?;
    }
    Ok(())
}

fn grant(
    host: &Host,
    spec: &GuestSpec,
    artifact: &Artifact,
    description: &Description,
) -> Result<Vec<Rule>, RevisionError> {
    let approved = if spec.permissions.follows_component() { host.approvals.get(&spec.name)? } else { None };
    let namespace = host.options.host_namespace.as_deref();
    let rules = spec.permissions.resolve(&description.permissions, artifact.digest(), approved.as_ref(), namespace)?;
    if spec.permissions.follows_component() {
        let approval = Approval { digest: artifact.digest().to_owned(), rules: rules.clone() };
        if approved.as_ref() != Some(&approval) {
            host.approvals.keep(&spec.name, &approval)?;
        }
    }
    Ok(rules)
}

/// A controller whose watch is not granted could never do its work, so the guest does not start without it.
fn check_watches(description: &Description, permissions: &Permissions) -> Result<(), RevisionError> {
    for controller in &description.controllers {
        for watch in std::iter::once(&controller.primary).chain(&controller.watches) {
            let namespaces: Vec<Option<&str>> = if watch.namespaces.is_empty() {
                vec![None]
            } else {
                watch.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect()
            };
            for namespace in namespaces {
                let right = |verb| Right {
                    verb,
                    group: &watch.of.group,
                    plural: &watch.of.plural,
                    subresource: None,
                    namespace,
                    name: None,
                };
                if [Verb::List, Verb::Watch].into_iter().all(|verb| permissions.allows(&right(verb))) {
                    continue;
                }
                let mut rule = right(Verb::List).to_rule();
                rule.verbs.push(Verb::Watch.as_str().to_owned());
                return Err(RevisionError::WatchNotGranted {
                    controller: controller.name.clone(),
                    resource: watch.of.to_string(),
                    place: namespace.map_or_else(
                        || "in all namespaces".to_owned(),
                        |namespace| format!("in namespace `{namespace}`"),
                    ),
                    rule: serde_json::to_string(&rule).unwrap_or_default(),
                });
            }
        }
    }
    Ok(())
}
