//! Records when the controllers of kube-controller-manager would have been woken, had they been guests: a scripted day of
//! deployments, scaling and jobs on the test cluster, seen by one guest for each kind.
//!
//! `cargo run --release -p e2e --bin record_trace -- prediction/traces/controller-manager.csv`. An hour of the day takes half a
//! minute. It needs what the end-to-end tests need.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use harness::{Context as _, Guest, Result, Rule, Space};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rand_core::{Rng as _, SeedableRng as _};
use rand_xorshift::XorShiftRng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

/// What the guests watch: guest, group, resource as the program `observer` wants it.
const OBSERVED: [(&str, &str, &str, &str); 4] = [
    ("deployments", "apps", "deployments", "apps/v1/Deployment/deployments"),
    ("replicasets", "apps", "replicasets", "apps/v1/ReplicaSet/replicasets"),
    ("jobs", "batch", "jobs", "batch/v1/Job/jobs"),
    ("pods", "", "pods", "/v1/Pod/pods"),
];
const APPLICATIONS: u32 = 6;
const SEED: u64 = 20_260_101;

#[derive(Debug, Parser)]
struct Arguments {
    /// The file to write
    file: PathBuf,
    /// Seconds that an hour of the day takes
    #[arg(long, default_value_t = 30)]
    hour: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    harness::measure("record", async |space| record(space, &arguments).await)
}

async fn record(space: &Space, arguments: &Arguments) -> Result<()> {
    let namespace = space.namespace("day").await?;
    let guests = OBSERVED.map(|(name, group, plural, resource)| {
        Guest::new(name, "observer")
            .env("NAMESPACES", &namespace)
            .env("RESOURCE", resource)
            .grant(Rule::read(group, plural).namespace(&namespace))
    });
    let file = std::path::absolute(&arguments.file)?;
    if file.exists() {
        std::fs::remove_file(&file).with_context(|| format!("cannot replace `{}`", file.display()))?;
    }
    let host = space.host().guests(guests).argument(format!("--record-wakes={}", file.display())).start().await?;
    host.until_ready().await?;
    let mut day = Day {
        deployments: Api::namespaced(space.client(), &namespace),
        jobs: Api::namespaced(space.client(), &namespace),
        random: XorShiftRng::seed_from_u64(SEED),
        hour: Duration::from_secs(arguments.hour),
        start: Instant::now(),
    };
    for hour in 0..24 {
        day.live(hour).await.with_context(|| format!("hour {hour}"))?;
    }
    Ok(())
}

struct Day {
    deployments: Api<Deployment>,
    jobs: Api<Job>,
    random: XorShiftRng,
    hour: Duration,
    start: Instant,
}

impl Day {
    /// Deploys in the morning, scales with the load, runs a job every hour and three at night, releases at irregular times.
    async fn live(&mut self, hour: u32) -> Result<()> {
        if hour == 6 {
            for number in 0..APPLICATIONS {
                self.deployments.create(&PostParams::default(), &deployment(number)?).await?;
            }
        }
        self.at(hour, 0.0).await;
        for number in 0..if hour < 5 { 3 } else { 1 } {
            self.jobs.create(&PostParams::default(), &job(hour, number)?).await?;
        }
        if (8..=20).contains(&hour) {
            for step in 0..3 {
                let jitter = f64::from(self.up_to(250)) / 1000.0;
                self.at(hour, 0.25 * f64::from(step + 1) - 0.2 + jitter).await;
                let busy = if (10..=16).contains(&hour) { 8 } else { 3 };
                let replicas = 1 + self.up_to(busy);
                self.scale(replicas).await?;
                if self.up_to(5) == 0 {
                    self.release(hour).await?;
                }
            }
        }
        self.at(hour, 0.9).await;
        let finished = DeleteParams::background();
        let old = self.jobs.list(&kube::api::ListParams::default()).await?;
        for job in old.items.iter().filter_map(|job| job.metadata.name.as_deref()) {
            self.jobs.delete(job, &finished).await?;
        }
        Ok(())
    }

    async fn at(&self, hour: u32, part: f64) {
        sleep_until(self.start + self.hour.mul_f64(f64::from(hour) + part)).await;
    }

    fn up_to(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    async fn scale(&mut self, replicas: u32) -> Result<()> {
        let name = format!("app-{}", self.up_to(APPLICATIONS));
        let scale = json!({ "spec": { "replicas": replicas } });
        self.deployments.patch(&name, &PatchParams::default(), &Patch::Merge(scale)).await?;
        Ok(())
    }

    async fn release(&mut self, hour: u32) -> Result<()> {
        let name = format!("app-{}", self.up_to(APPLICATIONS));
        let version =
            json!({ "spec": { "template": { "metadata": { "annotations": { "version": hour.to_string() } } } } });
        self.deployments.patch(&name, &PatchParams::default(), &Patch::Merge(version)).await?;
        Ok(())
    }
}

fn deployment(number: u32) -> Result<Deployment> {
    let name = format!("app-{number}");
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "app", "image": "example.org/app" }] },
            },
        },
    }))?)
}

fn job(hour: u32, number: u32) -> Result<Job> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("job-{hour}-{number}") },
        "spec": { "template": { "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "job", "image": "example.org/job" }],
        } } },
    }))?)
}
