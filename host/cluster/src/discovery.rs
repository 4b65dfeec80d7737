//! What the API server serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tokio::time::timeout;
use wasm_operator_core::watch::Resource;

/// Time for one discovery request.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Scope of a kind is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiscoveryError {
    /// The kind is not served, or not under this plural. It may come later, with its CustomResourceDefinition.
    #[error("the API server does not serve `{0}`")]
    NotServed(Resource),
    /// Trying again may help.
    #[error("the API server does not say what it serves: {0}")]
    Unanswered(String),
}

/// Remembers which kinds have namespaces: that never changes while a kind exists. Clones share it.
#[derive(Clone)]
pub struct Discovery {
    client: Client,
    namespaced: Arc<Mutex<HashMap<Resource, bool>>>,
}

impl Discovery {
    /// Asks with this client.
    pub fn new(client: Client) -> Self {
        Self { client, namespaced: Arc::default() }
    }

    /// Whether objects of the kind live in namespaces.
    pub async fn is_namespaced(&self, resource: &Resource) -> Result<bool, DiscoveryError> {
        if let Some(namespaced) = self.namespaced.lock().get(resource) {
            return Ok(*namespaced);
        }
        let list = async {
            if resource.group.is_empty() {
                self.client.list_core_api_resources(&resource.version).await
            } else {
                self.client.list_api_group_resources(&resource.api_version()).await
            }
        };
        let unanswered = |reason: String| DiscoveryError::Unanswered(reason);
        let list = match timeout(DISCOVERY_TIMEOUT, list).await {
            Ok(Ok(list)) => list,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return Err(DiscoveryError::NotServed(resource.clone()));
            }
            Ok(Err(error)) => return Err(unanswered(error.to_string())),
            Err(_) => return Err(unanswered(format!("no answer within {} s", DISCOVERY_TIMEOUT.as_secs()))),
        };
        let found = list.resources.iter().find(|r| r.name == resource.plural && r.kind == resource.kind);
        let namespaced = found.map(|r| r.namespaced).ok_or_else(|| DiscoveryError::NotServed(resource.clone()))?;
        self.namespaced.lock().insert(resource.clone(), namespaced);
        Ok(namespaced)
    }
}
