//! Traces of events, replayed to guests whose wake is dear, once for each way to sleep: a host for each way, one after the other,
//! and in it a guest for each trace and program.

mod guest;
mod lane;
mod replay;
mod report;
mod trace;

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::Result;
use wasm_operator_devel::Progress;

use crate::stage::Stage;
use crate::system::Machine;
use crate::variant::Sleep;

/// What is to be replayed.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    /// Files, or directories with CSV files.
    pub(crate) traces: Vec<PathBuf>,
    /// How many times as fast as they happened.
    pub(crate) speed: f64,
    /// What is played of each.
    pub(crate) length: Duration,
}

impl Replay {
    /// Replays and writes the results.
    pub(crate) async fn run(&self, stage: &Stage, out: &Path) -> Result<()> {
        let traces = trace::read_all(&self.traces)?;
        let traces: Vec<_> = traces.iter().map(|trace| trace.played(self.speed, self.length)).collect();
        let (programs, skipped) = guest::programs()?;
        let started = jiff::Timestamp::now();
        let (mut sides, mut outcomes) = (Vec::new(), Vec::new());
        for sleep in Sleep::ALL {
            let name = format!("starting a host that sleeps `{}`", sleep.name());
            let side = lane::Side::start(stage, sleep, &programs, &traces);
            let mut side = Progress::default().during(&name, side).await?;
            let name = format!("replaying {} traces to {} guests", traces.len(), side.lanes.len());
            outcomes.push(Progress::default().during(&name, replay::run(stage, &side)).await?);
            side.host.kill()?;
            sides.push(side);
        }
        let results = report::Results::new(self, started, Machine::this(), skipped, &sides, &outcomes);
        results.write(out)
    }
}
