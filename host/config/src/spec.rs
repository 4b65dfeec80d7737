//! What an administrator says of one guest.

use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasm_operator_core::allowed_host::AllowedHost;
use wasm_operator_core::dispatch::Settings;
use wasm_operator_core::fair::DEFAULT_WEIGHT;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::permission::ServiceAccountUser;
use wasm_operator_core::prediction::SleepPolicy;
use wasm_operator_policy as policy;

use crate::duration;
use crate::grants::Grants;
use crate::names;
use crate::serve::Serve;
use crate::service_account::ServiceAccount;

/// The idle time of [`SleepMode::Fixed`] unless the configuration names one: longer than the gaps within a burst, short
/// beside the gaps between bursts.
pub(crate) const DEFAULT_IDLE_AFTER: Duration = Duration::from_secs(1);

/// One guest: a WebAssembly component with one or more controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestSpec {
    /// Unique among all guests; a DNS label of at most 57 characters.
    #[serde(deserialize_with = "names::guest_name")]
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 57))]
    pub name: String,
    /// The component, a `.wasm` file. A relative path starts at the directory of the configuration file.
    #[serde(deserialize_with = "names::path")]
    pub wasm: PathBuf,
    /// The guest's whole environment; nothing is inherited from the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// The guest's arguments, without a program name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What the guest may do in the cluster: a list of rules, `as-requested` or `as-requested@sha256:<digest>`. Default:
    /// nothing. The roles of its service account must allow it as well.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub permissions: Grants,
    /// The account that the guest acts as: a name in the host's namespace, or `namespace/name`. Default: `guest-<name>` in
    /// the host's namespace. The account need not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// What the guest may use.
    #[serde(default)]
    pub limits: Limits,
    /// When the guest is put to sleep.
    #[serde(default)]
    pub sleep: Sleep,
    /// The requests that the guest serves behind the front door, and where else.
    #[serde(default)]
    pub serve: Serve,
    /// Reconciles at once, and so instances, each with its own `limits.memoryBytes`. 1 to 256, default 1.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u32,
    /// The guest's share of the host when others have work as well: one of 200 gets twice as much as one of 100. 1 to
    /// 10,000, default 100.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: u32,
    /// Other hosts that the guest may send HTTP requests to, as `host` (HTTPS, port 443), `host:port`, or
    /// `http://host:port` for plain HTTP. A network such as `10.96.0.0/12` lets the listed names lead there, and
    /// `http://10.244.0.0/16:8081` stands for all of its addresses. Default: none.
    /// The API server is always reached as `https://kubernetes.default.svc`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<AllowedHost>,
    /// PEM file with certificate authorities of `allowedHosts` beside the public ones, relative to the directory of this
    /// file. The guest begins anew when it changes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authorities: Option<PathBuf>,
    /// How often all objects are reconciled without a change, such as `10h`. Default: never.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::optional_schema")]
    pub resync: Option<Duration>,
    /// Holds the guest back: running reconciles end, changes are kept until it is resumed.
    #[serde(default)]
    pub suspend: bool,
    /// Lets mappings by label, annotation and owner name a primary in another namespace than the changed object's. Who may
    /// write the changed objects then decides which primaries of other namespaces are reconciled.
    #[serde(default)]
    pub allow_cross_namespace_mapping: bool,
    /// The field manager of a controller that this guest takes over from, used in the place of the guest's own name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names::field_manager")]
    #[schemars(length(min = 1, max = 128))]
    pub adopt_field_manager: Option<String>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Unique in the guest, without `=`.
    #[serde(deserialize_with = "names::variable")]
    pub name: String,
    /// The value. Not a place for secrets: it is shown to everybody who may read the configuration.
    #[serde(default)]
    pub value: String,
}

/// When a guest's instances are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sleep {
    /// The policy. Default `Predicted`.
    pub mode: SleepMode,
    /// With `Fixed`: idle time until sleep. Default `1s`.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub idle_after: Duration,
    /// With `Predicted`: idle time before which it does not sleep. Default `0s`.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub min_resident: Duration,
    /// Whether the memory of a program (a guest that exports `wasi:cli/run`) may be written to disk while it is idle. Secrets
    /// in it are written as well, to a file without a name. Without it a program stays awake. Default true.
    pub hibernate: bool,
}

impl Default for Sleep {
    fn default() -> Self {
        Self {
            mode: SleepMode::default(),
            idle_after: DEFAULT_IDLE_AFTER,
            min_resident: Duration::ZERO,
            hibernate: true,
        }
    }
}

impl Sleep {
    /// The policy as the scheduler takes it.
    #[must_use]
    pub fn policy(&self) -> SleepPolicy {
        match self.mode {
            SleepMode::Never => SleepPolicy::Never,
            SleepMode::Immediately => SleepPolicy::Immediately,
            SleepMode::Fixed => SleepPolicy::Fixed(self.idle_after),
            SleepMode::Predicted => {
                let settings = policy::Settings { min_resident: self.min_resident, ..Default::default() };
                SleepPolicy::Predicted(settings)
            }
        }
    }
}

/// How it is decided when a guest sleeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SleepMode {
    /// The guest keeps its instances.
    Never,
    /// As soon as nothing is queued or running.
    Immediately,
    /// After `idleAfter` without work.
    Fixed,
    /// As the guest's own past and the measured costs of waking and keeping it suggest; it may be made ready ahead of its
    /// work as well.
    #[default]
    Predicted,
}

fn default_concurrency() -> u32 {
    1
}

fn default_weight() -> u32 {
    DEFAULT_WEIGHT
}

impl GuestSpec {
    /// A guest with nothing but a name and a component.
    #[must_use]
    pub fn new(name: impl Into<String>, wasm: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            wasm: wasm.into(),
            env: Vec::new(),
            args: Vec::new(),
            permissions: Grants::default(),
            service_account: None,
            limits: Limits::default(),
            sleep: Sleep::default(),
            serve: Serve::default(),
            concurrency: default_concurrency(),
            weight: default_weight(),
            allowed_hosts: Vec::new(),
            certificate_authorities: None,
            resync: None,
            suspend: false,
            allow_cross_namespace_mapping: false,
            adopt_field_manager: None,
        }
    }

    /// The component's path, from the directory of the configuration file.
    #[must_use]
    pub fn wasm_path(&self, directory: &Path) -> PathBuf {
        directory.join(&self.wasm)
    }

    /// The path of the file of authorities, from the directory of the configuration file.
    #[must_use]
    pub fn certificate_authorities_path(&self, directory: &Path) -> Option<PathBuf> {
        self.certificate_authorities.as_ref().map(|path| directory.join(path))
    }

    /// The files that it names. The guest begins anew when one of them changes.
    pub fn files(&self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        iter::once(self.wasm_path(directory)).chain(self.certificate_authorities_path(directory))
    }

    /// The account that the guest acts as.
    #[must_use]
    pub fn identity(&self, host_namespace: &str) -> ServiceAccountUser {
        match &self.service_account {
            Some(account) => account.user(host_namespace),
            None => ServiceAccountUser { namespace: host_namespace.to_owned(), name: format!("guest-{}", self.name) },
        }
    }

    /// What the scheduler needs to know.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            weight: self.weight,
            concurrency: usize::try_from(self.concurrency).unwrap_or(usize::MAX),
            requests: usize::try_from(self.serve.concurrency).unwrap_or(usize::MAX),
            waiting_requests: usize::try_from(self.serve.queue).unwrap_or(usize::MAX),
            sleep: self.sleep.policy(),
            coalesce: None,
            resync: self.resync,
            suspended: self.suspend,
        }
    }
}

/// The JSON schema of [`GuestSpec`] as text; `schema.json` of this crate is a copy.
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(GuestSpec);
    // A schema is a tree of JSON values, which always has a text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
