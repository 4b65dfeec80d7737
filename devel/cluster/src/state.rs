use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Environment variable with the path of the JSON file that [`State`] describes.
pub const STATE_VARIABLE: &str = "WASM_OPERATOR_DEVEL_STATE";

/// What others need to know of a running control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `https://127.0.0.1:<port>`
    pub apiserver_url: String,
    /// `http://127.0.0.1:<port>`
    pub etcd_url: String,
    /// Kubeconfig of the administrator.
    pub kubeconfig: PathBuf,
    /// Kubeconfigs of the further users, by user name.
    pub kubeconfigs: BTreeMap<String, PathBuf>,
    /// Log files, by component.
    pub logs: BTreeMap<String, PathBuf>,
    /// Process ids of the running components, by component.
    pub pids: BTreeMap<String, u32>,
}

impl State {
    /// Reads the file that [`STATE_VARIABLE`] names. `None` when the variable is not set.
    pub fn from_environment() -> Option<std::io::Result<Self>> {
        let path = std::env::var_os(STATE_VARIABLE)?;
        Some(std::fs::read(path).and_then(|text| serde_json::from_slice(&text).map_err(Into::into)))
    }
}
