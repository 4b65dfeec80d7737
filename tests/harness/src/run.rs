//! The frame of every end-to-end test.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;

use crate::cluster::Cluster;
use crate::space::Space;

/// Longer than any test takes, so that a test that hangs says so instead of hanging the suite.
const MOST: Duration = Duration::from_secs(300);

/// Runs a test on the shared control plane, in a space named after it. When it fails, the ends of its hosts' logs are shown.
#[allow(clippy::print_stderr)]
pub fn test(body: impl AsyncFnOnce(&Space) -> Result<()>) -> Result<()> {
    let thread = std::thread::current();
    let name = thread.name().context("a test without a name")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::shared().await?;
        let space = Space::new(name, cluster).await?;
        let run = AssertUnwindSafe(tokio::time::timeout(MOST, body(&space))).catch_unwind();
        let result = match run.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(anyhow!("the test took more than {} s", MOST.as_secs())),
            Err(panic) => {
                eprintln!("{}", space.report());
                std::panic::resume_unwind(panic);
            }
        };
        result.map_err(|error| error.context(format!("{}\n`{name}` failed", space.report())))
    })
}
