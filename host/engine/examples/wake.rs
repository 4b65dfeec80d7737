//! What a guest costs: time to wake, memory awake and dormant.
//!
//! `cargo run --release -p wasm-operator-engine --example wake -- GUEST.wasm [CALLS] [NAME=VALUE...]`
//!
//! Every request of the guest is answered at once with `{}`, so the figures hold the host's and the guest's part of a
//! reconcile and nothing of an API server's.

#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::{Cause, Request};
use wasm_operator_engine::{
    Component, Engine, EngineOptions, GuestLogs, GuestSettings, HttpError, Instance, OutgoingHttp, ResponseBody,
    Timeouts,
};

/// Instances and components held at once to measure the memory of one.
const AT_ONCE: u64 = 100;
const CALLS: usize = 2000;

struct EmptyObject;

impl OutgoingHttp for EmptyObject {
    fn send(
        &self,
        _: http::Request<Bytes>,
        _: Timeouts,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, HttpError>> {
        let body = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed_unsync();
        let response = http::Response::builder().header("content-type", "application/json").body(body);
        async { response.map_err(|_| HttpError::Protocol) }.boxed()
    }
}

struct Bench {
    engine: Engine,
    settings: GuestSettings,
    logs: Arc<GuestLogs>,
    request: Request,
}

impl Bench {
    async fn instance(&self, component: &Component) -> anyhow::Result<Instance> {
        Ok(component.instantiate(&self.settings, Arc::new(EmptyObject), &self.logs).await?)
    }

    async fn wake(&self, component: &Component) -> anyhow::Result<Instance> {
        let mut instance = self.instance(component).await?;
        // A guest that does not like `{}` says so; the work up to there is the same.
        let _ = instance.reconcile(&self.request).await?;
        Ok(instance)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [command, wasm, output, digest] = arguments.as_slice()
        && command == "compile"
    {
        return Ok(wasm_operator_engine::compile(Path::new(wasm), Path::new(output), Some(digest))?);
    }
    let Some((wasm, rest)) = arguments.split_first() else {
        bail!("usage: wake GUEST.wasm [CALLS] [NAME=VALUE...]");
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(Path::new(wasm), rest))
}

async fn run(wasm: &Path, rest: &[String]) -> anyhow::Result<()> {
    let calls = rest.iter().find_map(|argument| argument.parse().ok()).unwrap_or(CALLS);
    let env = rest.iter().filter_map(|argument| argument.split_once('='));
    let cache = tempfile::tempdir()?;
    let compiler = vec![std::env::current_exe()?.into_os_string(), "compile".into()];
    let settings = GuestSettings {
        name: "wake".into(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        args: vec![],
        limits: Limits { request_milliseconds: 5_000, ..Limits::default() },
    };
    let engine = Engine::new(EngineOptions::new(cache.path().to_owned(), compiler))?;
    println!("engine without guests             {:>9} KiB anonymous", anonymous()?);

    let start = Instant::now();
    let artifact = engine.prepare(wasm).await?;
    println!(
        "compile in a child                {:>9.1} ms, {} KiB compiled",
        milliseconds(start.elapsed()),
        artifact.bytes() >> 10
    );
    let start = Instant::now();
    engine.prepare(wasm).await?;
    println!("found in the cache                {:>9.2} ms", milliseconds(start.elapsed()));

    let logs = GuestLogs::discard();
    let component = engine.load(&artifact)?;
    let start = Instant::now();
    let description = component.describe(&settings, &logs).await;
    let controller = match &description {
        Ok(description) => description.controllers.first().map_or("", |controller| controller.name.as_str()).into(),
        Err(error) => {
            println!("describe: {error}");
            "".into()
        }
    };
    println!("describe                          {:>9.2} ms", milliseconds(start.elapsed()));
    let request = Request {
        controller,
        object: ObjectRef { namespace: Some("default".into()), name: "one".into() },
        content: Some(Arc::from(&br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one","namespace":"default","uid":"1","resourceVersion":"1"}}"#[..])),
        deleted: vec![],
        attempt: 0,
        cause: Cause::Change,
        id: "wake".into(),
        traceparent: None,
    };
    let bench = Bench { engine, settings, logs, request };

    let loads = measure(200, async || bench.engine.load(&artifact).map(drop).context("load")).await?;
    print("load (cold to dormant) and unload", loads);
    let instantiations = measure(calls, async || bench.instance(&component).await.map(drop)).await?;
    print("instantiate + drop", instantiations);
    let wakes = measure(calls, async || bench.wake(&component).await.map(drop)).await?;
    print("instantiate + reconcile + drop", wakes);
    let mut warm = bench.instance(&component).await?;
    let mut reconciles = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let _ = warm.reconcile(&bench.request).await?;
        reconciles.push(start.elapsed());
    }
    print("reconcile while awake", reconciles);
    drop(warm);

    let before = anonymous()?;
    let mut awake = vec![];
    for _ in 0..AT_ONCE {
        awake.push(bench.wake(&component).await?);
    }
    let linear = awake.first().map_or(0, Instance::memory_bytes);
    println!(
        "awake                             {:>9} KiB private of {} KiB linear memory",
        (anonymous()? - before) / AT_ONCE,
        linear >> 10
    );
    drop(awake);
    println!("after {AT_ONCE} are dropped             {:>9} KiB more than before", anonymous()?.saturating_sub(before));

    let before = anonymous()?;
    let mut dormant = vec![];
    for _ in 0..AT_ONCE {
        dormant.push(bench.engine.load(&artifact)?);
    }
    let estimate = dormant.first().map_or(0, |component| component.bytes());
    println!(
        "dormant                           {:>9} KiB private, estimated as {}",
        (anonymous()? - before) / AT_ONCE,
        estimate >> 10
    );
    Ok(())
}

async fn measure(count: usize, mut work: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        work().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let quantile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!("{what:<33} {:>9.3} ms p50, {:.3} ms p95", milliseconds(quantile(50)), milliseconds(quantile(95)));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Anonymous resident memory of this process in KiB: private pages, copies of shared ones included.
fn anonymous() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).context("no RssAnon in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}
