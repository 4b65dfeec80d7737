//! Which kind a resource in a request path is of.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, timeout};
use wasm_operator_core::watch::Resource;

use crate::cache::Cache;

/// How long an answer is used. Default 10 min: a CustomResourceDefinition cannot change the kind of its plural without
/// being deleted, which ends the watches of it.
const ANSWER_TTL: Duration = Duration::from_secs(600);

/// Answers kept at most. Default 1,024: guests ask for kinds that exist, of which a cluster has hundreds.
const MAX_ANSWERS: usize = 1_024;

/// Time for one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

type Key = (Box<str>, Box<str>, Box<str>);

/// Asks the API server's discovery. Clones share their answers.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: Client,
    answers: Arc<Cache<Key, Arc<str>>>,
}

impl Kinds {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: Arc::new(Cache::new(MAX_ANSWERS)) }
    }

    /// The resource with its kind; None if the server does not serve it or does not say.
    pub(crate) async fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        let key: Key = (group.into(), version.into(), plural.into());
        let kind = match self.answers.get(&key) {
            Some(kind) => kind,
            None => {
                let kind = self.ask(group, version, plural).await?;
                self.answers.insert(key, kind.clone(), Instant::now() + ANSWER_TTL);
                kind
            }
        };
        Some(Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_string(),
            plural: plural.to_owned(),
        })
    }

    async fn ask(&self, group: &str, version: &str, plural: &str) -> Option<Arc<str>> {
        let list = async {
            match group {
                "" => self.client.list_core_api_resources(version).await,
                group => self.client.list_api_group_resources(&format!("{group}/{version}")).await,
            }
        };
        let list = match timeout(QUESTION_TIMEOUT, list).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => {
                tracing::debug!(group, version, %error, "no answer from discovery");
                return None;
            }
            Err(_) => return None,
        };
        list.resources.into_iter().find(|resource| resource.name == plural).map(|resource| resource.kind.into())
    }
}
