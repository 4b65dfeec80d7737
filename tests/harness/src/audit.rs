//! The API server's audit log: what really arrived there, from whom, as whom.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Metadata of every request. Watches are logged when they begin and when they end, everything else when it ends.
pub(crate) const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "kwok"]},
    {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
    {"level": "Metadata"}
]}"#;

/// One line of the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `ResponseStarted` (watches only) or `ResponseComplete`.
    pub stage: String,
    /// Identifies the request: the same in both stages.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `get`, `list`, `watch`, `create`, ...
    pub verb: String,
    /// Path and query as they arrived.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who authenticated.
    pub user: AuditUser,
    /// As whom the request ran, if it asked for that.
    pub impersonated_user: Option<AuditUser>,
    /// As sent.
    #[serde(default)]
    pub user_agent: String,
    /// What the request was for, if it was for objects.
    pub object_ref: Option<AuditObject>,
    /// The answer.
    pub response_status: Option<AuditStatus>,
}

/// A user in an [`AuditEvent`].
#[derive(Debug, Clone, Deserialize)]
pub struct AuditUser {
    /// Its name.
    #[serde(default)]
    pub username: String,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// An object in an [`AuditEvent`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuditObject {
    /// Plural.
    pub resource: String,
    /// Empty for the core group.
    pub api_group: String,
    /// Empty without one.
    pub namespace: String,
    /// Empty without one.
    pub name: String,
    /// Empty without one.
    pub subresource: String,
}

/// An answer in an [`AuditEvent`].
#[derive(Debug, Clone, Deserialize)]
pub struct AuditStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl AuditEvent {
    /// The requested plural, empty for paths that are not of objects.
    pub fn resource(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.resource)
    }

    /// The status of the answer, 0 if there is none yet.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.stage == "ResponseComplete"
    }

    /// The name that rights were checked for.
    pub fn acting_user(&self) -> &str {
        self.impersonated_user.as_ref().map_or(&self.user.username, |user| &user.username)
    }
}

/// The audit log from a moment on.
#[derive(Debug, Clone)]
pub struct Audit {
    file: PathBuf,
    start: u64,
}

impl Audit {
    /// From now on.
    pub(crate) fn from_now(file: &Path) -> Self {
        let start = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        Self { file: file.to_owned(), start }
    }

    /// The same log, from now on.
    pub fn mark(&self) -> Self {
        Self::from_now(&self.file)
    }

    /// What was logged since the start and passes `filter`. The server writes a line when the request has ended, which is a little after its answer has
    /// arrived: wait for a line that must be there with [`eventually`](crate::eventually).
    pub fn events(&self, mut filter: impl FnMut(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
        let mut file =
            std::fs::File::open(&self.file).with_context(|| format!("the audit log `{}`", self.file.display()))?;
        file.seek(SeekFrom::Start(self.start))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // The last line may be half-written; before the mark nothing is.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(|line| serde_json::from_slice(line).context("a line of the audit log"));
        events.filter(|event: &Result<AuditEvent>| event.as_ref().map_or(true, &mut filter)).collect()
    }

    /// The watches that are open now, of those that began after the start.
    pub fn open_watches(&self, mut filter: impl FnMut(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
        let all = self.events(|event| event.verb == "watch" && filter(event))?;
        let (ended, begun): (Vec<_>, Vec<_>) = all.into_iter().partition(AuditEvent::is_complete);
        Ok(begun.into_iter().filter(|watch| ended.iter().all(|end| end.audit_id != watch.audit_id)).collect())
    }
}
