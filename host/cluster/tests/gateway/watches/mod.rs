//! Watches of guests that keep their own: what a client gets of them, beside what the API server gives.

mod differential;
mod ends;
mod runtime;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use harness::PATIENCE;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use wasm_operator_cluster::gateway::{Body, GuestAccess, GuestGateway};
use wasm_operator_cluster::metrics::ResourceLabel;
use wasm_operator_core::limits::Limits;

use crate::stage::{Guest, Stage, config_map, everything};

impl Stage {
    /// A guest that watches for itself.
    pub(crate) fn watching(&self, account: &str) -> Result<Guest> {
        self.watching_as(account, account)
    }

    /// [`watching`](Self::watching), with a name of its own.
    pub(crate) fn watching_as(&self, name: &str, account: &str) -> Result<Guest> {
        Ok(Guest(self.gateway.guest(self.watching_access(name, account)?)?))
    }

    pub(crate) fn watching_access(&self, name: &str, account: &str) -> Result<GuestAccess> {
        let limits = Limits { request_milliseconds: 60_000, ..Limits::default() };
        let access = self.access(account, vec![everything()])?;
        Ok(GuestAccess { name: name.into(), shared_watches: true, limits, ..access })
    }

    pub(crate) async fn put(&self, name: &str, value: &str, label: &str) -> Result<Value> {
        let mut map = config_map(name, value);
        map["metadata"]["labels"] = json!({ "l": label });
        let path = format!("{}?force=true&fieldManager=test", self.path(&format!("configmaps/{name}")));
        let answer = self.direct("PATCH", &path, &map).await?;
        ensure!(answer.code < 300, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.direct("DELETE", &self.path(&format!("configmaps/{name}")), &Value::Null).await?.expect(200)?;
        Ok(())
    }

    /// Upstream watches of the kind.
    pub(crate) fn streams(&self, resource: &str) -> i64 {
        self.informer_metrics.watch_streams.get_or_create(&label(resource)).get()
    }
}

fn label(resource: &str) -> ResourceLabel {
    ResourceLabel { resource: resource.to_owned() }
}

/// The client that an unmodified program in the guest would have.
fn client_of(guest: &Guest) -> Client {
    let gateway = guest.0.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let gateway = gateway.clone();
        async move { send(&gateway, request).await }
    });
    Client::new(service, "default")
}

async fn send(gateway: &Arc<GuestGateway>, request: Request<kube::client::Body>) -> Result<http::Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("https://kubernetes.default.svc{path}").parse()?;
    let body: Bytes = body.collect_bytes().await?;
    Ok(gateway.send(Request::from_parts(parts, body), Duration::from_secs(60)).await?)
}

/// A watch, line by line.
struct Lines {
    code: u16,
    body: Body,
    rest: Vec<u8>,
}

impl Guest {
    async fn open(&self, path: &str, accept: &str) -> Result<Lines> {
        let request = Request::get(format!("https://kubernetes.default.svc{path}")).header("accept", accept);
        let answer = self.0.send(request.body(Bytes::new())?, Duration::from_secs(60)).await?;
        Ok(Lines { code: answer.status().as_u16(), body: answer.into_body(), rest: Vec::new() })
    }

    async fn watch(&self, path: &str) -> Result<Lines> {
        let lines = self.open(path, "application/json").await?;
        ensure!(lines.code == 200, "{path}: {}", lines.code);
        Ok(lines)
    }
}

impl Lines {
    /// The next event; None at the end.
    async fn next(&mut self) -> Result<Option<Value>> {
        timeout(PATIENCE, self.read()).await.context("no event in time")?
    }

    async fn read(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(frame) => self.rest.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => {
                    ensure!(self.rest.is_empty(), "a line without its end");
                    return Ok(None);
                }
            }
        }
    }

    /// `ADDED name value`, and so on.
    async fn words(&mut self) -> Result<String> {
        let event = self.next().await?.context("the watch ended")?;
        Ok(words(&event))
    }

    async fn expect(&mut self, expected: &str) -> Result<Value> {
        let event = self.next().await?.with_context(|| format!("the watch ended before {expected}"))?;
        ensure!(words(&event) == expected, "{event} instead of {expected}");
        Ok(event)
    }
}

fn words(event: &Value) -> String {
    let object = &event["object"];
    let kind = event["type"].as_str().unwrap_or_default();
    match kind {
        "BOOKMARK" => kind.to_owned(),
        "ERROR" => format!("{kind} {}", object["code"]),
        _ => format!(
            "{kind} {} {}",
            object["metadata"]["name"].as_str().unwrap_or_default(),
            object["data"]["value"].as_str().unwrap_or_default()
        ),
    }
}

fn version(event: &Value) -> &str {
    event["object"]["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}
