//! The floor: one watch and one PUT per hop, with no queue, no cache framework and no controller.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};

use crate::Pair;
use crate::resource::TestResource;

pub(crate) async fn run(client: Client, pairs: Vec<Pair>) -> anyhow::Result<()> {
    let next: HashMap<String, String> = pairs.into_iter().map(|pair| (pair.from, pair.out)).collect();
    let all: Api<TestResource> = Api::all(client.clone());
    let list = all.list(&ListParams::default()).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    let mut known: HashMap<String, TestResource> = HashMap::new();
    for object in list.items {
        known.insert(object.namespace().unwrap_or_default(), object);
    }
    for object in known.values().cloned().collect::<Vec<_>>() {
        pass_on(&client, &next, &known, &object).await?;
    }
    loop {
        let mut events = std::pin::pin!(all.watch(&WatchParams::default(), &version).await?);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.resource_version().unwrap_or_default();
                    known.insert(object.namespace().unwrap_or_default(), object.clone());
                    pass_on(&client, &next, &known, &object).await?;
                }
                WatchEvent::Deleted(object) => {
                    version = object.resource_version().unwrap_or_default();
                    known.remove(&object.namespace().unwrap_or_default());
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => anyhow::bail!("the watch failed: {}", status.message),
            }
        }
    }
}

async fn pass_on(
    client: &Client,
    next: &HashMap<String, String>,
    known: &HashMap<String, TestResource>,
    object: &TestResource,
) -> anyhow::Result<()> {
    let Some(out) = object.namespace().and_then(|namespace| next.get(&namespace)) else { return Ok(()) };
    let there = known.get(out);
    let Some(passed_on) = object.passed_on(out, there) else { return Ok(()) };
    let api: Api<TestResource> = Api::namespaced(client.clone(), out);
    match there {
        Some(_) => api.replace(&object.name_any(), &PostParams::default(), &passed_on).await?,
        None => api.create(&PostParams::default(), &passed_on).await?,
    };
    Ok(())
}
