//! What an administrator says of the HTTP requests that a guest serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasm_operator_core::network::Network;

use crate::names;

/// The requests that a guest serves behind the front door, if its component exports `wasi:http/incoming-handler`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Serve {
    /// Requests at once, each in an instance with its own `limits.memoryBytes`, beside the reconciles. 1 to 64, default 4.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// Requests that wait for one of these places; further ones are answered with 429. 0 to 1,024, default 16.
    #[schemars(range(max = 1_024))]
    pub queue: u32,
    /// Wall time of one request in milliseconds, from its head to the last byte of the answer, waiting included; then it is
    /// answered with 504. 1 to 3,600,000, default 30,000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub milliseconds: u64,
    /// Body of one request in bytes; a larger one is answered with 413. The host holds it until the guest has answered. At
    /// most 16 MiB, default 1 MiB.
    #[schemars(range(max = 16_777_216))]
    pub request_bytes: u64,
    /// Body of one answer in bytes; what is larger is broken off. Default 32 MiB.
    pub response_bytes: u64,
    /// A listener for this guest alone, for clients that know neither tokens nor path prefixes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            concurrency: 4,
            queue: 16,
            milliseconds: 30_000,
            request_bytes: 1 << 20,
            response_bytes: 32 << 20,
            listener: None,
        }
    }
}

impl Serve {
    /// The wall time of one request.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

/// A listener at whose `/` one guest answers. Its callers bring no token: whoever comes from `sources`, and passes what
/// else is set here, is taken for `user`, who needs the right to `guests/proxy` like everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Address and port, such as `10.0.0.5:8443` or `0.0.0.0:8080`.
    #[serde(deserialize_with = "names::address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Where connections may come from; others are closed at once. At least one range.
    #[schemars(length(min = 1))]
    pub sources: Vec<Network>,
    /// Who the callers are taken for. Not a name of Kubernetes (`system:...`).
    #[serde(deserialize_with = "names::caller")]
    #[schemars(length(min = 1, max = 253))]
    pub user: String,
    /// The groups of that user. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "names::callers")]
    pub groups: Vec<String>,
    /// The certificate chain for HTTPS, a PEM file, read again when it changes. Without it the listener speaks plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Authorities whose client certificates are demanded, a PEM file. Needs `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authorities: Option<PathBuf>,
    /// Names and passwords for basic authentication: a file with lines `name:password`, read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwords: Option<PathBuf>,
}

impl Listener {
    /// Every file that is named here, from the directory of the configuration file.
    #[must_use]
    pub fn files(&self, directory: &Path) -> Vec<PathBuf> {
        [&self.certificate, &self.key, &self.client_authorities, &self.passwords]
            .into_iter()
            .flatten()
            .map(|file| directory.join(file))
            .collect()
    }

    /// Whether callers prove who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.client_authorities.is_some() || self.passwords.is_some()
    }
}
