//! The frame of every end-to-end test.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;

use crate::cluster::Cluster;
use crate::space::Space;

/// Longer than any test takes, so that a test that hangs says so instead of hanging the suite.
const MOST: Duration = Duration::from_secs(300);
/// Crashes after every write of a long protocol are many runs, and pods take their time.
const MOST_WITH_NODES: Duration = Duration::from_secs(900);
const MOST_MEASURING: Duration = Duration::from_secs(1_800);

/// Runs a test on the shared control plane, in a space named after it. When it fails, the ends of its hosts' logs are shown.
pub fn test(body: impl AsyncFnOnce(&Space) -> Result<()>) -> Result<()> {
    let thread = std::thread::current();
    frame(thread.name().context("a test without a name")?, MOST, Cluster::shared(), body)
}

/// As [`test`], on the shared control plane with simulated nodes ([`Cluster::shared_with_nodes`]).
pub fn test_with_nodes(body: impl AsyncFnOnce(&Space) -> Result<()>) -> Result<()> {
    let thread = std::thread::current();
    frame(thread.name().context("a test without a name")?, MOST_WITH_NODES, Cluster::shared_with_nodes(), body)
}

/// As [`test`], for a program that measures: it has a name of its own, and takes as long as it takes.
pub fn measure(name: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) -> Result<()> {
    frame(name, MOST_MEASURING, Cluster::shared(), body)
}

#[allow(clippy::print_stderr)]
fn frame(
    name: &str,
    most: Duration,
    cluster: impl Future<Output = Result<&'static Cluster>>,
    body: impl AsyncFnOnce(&Space) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let cluster = cluster.await?;
        let space = Space::new(name, cluster).await?;
        let run = AssertUnwindSafe(tokio::time::timeout(most, body(&space))).catch_unwind();
        let result = match run.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(anyhow!("the test took more than {} s", most.as_secs())),
            Err(panic) => {
                eprintln!("{}", space.report());
                std::panic::resume_unwind(panic);
            }
        };
        result.map_err(|error| error.context(format!("{}\n`{name}` failed", space.report())))
    })
}
