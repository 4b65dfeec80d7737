//! All variants in turn, round after round, until each has enough quiet repeats.

use std::time::Duration;

use harness::{Context as _, Result};
use serde::Serialize;
use wasm_operator_devel::Progress;

use crate::contestant::Contestant;
use crate::repeat::{Procedure, Repeat, measure};
use crate::stage::Stage;
use crate::statistics::{quiet, select};
use crate::system::MemoryGroup;
use crate::variant::Variant;

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Campaign {
    /// In the order of the results.
    pub(crate) variants: Vec<Variant>,
    /// Numbers of controllers.
    pub(crate) sizes: Vec<usize>,
    /// How each repeat is done.
    pub(crate) procedure: Procedure,
    /// How often, and when a repeat counts.
    pub(crate) rules: Rules,
}

/// When a repeat counts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rules {
    /// Repeats from quiet phases that are wanted.
    pub(crate) repeats: usize,
    /// Repeats at most.
    pub(crate) attempts: usize,
    /// Cores that others may use in a quiet phase.
    pub(crate) others_cores: f64,
    /// Seconds to wait for such a phase before a repeat.
    pub(crate) patience_seconds: u64,
}

/// The repeats of one variant with one number of controllers.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// What was measured.
    pub(crate) variant: Variant,
    /// With so many controllers.
    pub(crate) controllers: usize,
    /// All repeats, in the order in which they were done.
    pub(crate) repeats: Vec<Repeat>,
    /// The places of those that count.
    pub(crate) kept: Vec<usize>,
    /// How many of those were disturbed.
    pub(crate) disturbed: usize,
}

impl Campaign {
    /// Measures everything. Variants take turns, so that what changes over time meets all of them.
    pub(crate) async fn run(&self, stage: &Stage, group: Option<&MemoryGroup>) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        for controllers in &self.sizes {
            let variants = self.variants.iter().filter(|variant| variant.runs_with(*controllers));
            let mut repeats: Vec<(Variant, Vec<Repeat>)> = variants.map(|variant| (*variant, Vec::new())).collect();
            for round in 1..=self.rules.attempts {
                for (variant, done) in &mut repeats {
                    if quiet(&others(done), self.rules.others_cores) < self.rules.repeats {
                        let name = format!("{} with {controllers}, repeat {round}", variant.id);
                        let repeat = Progress::default().during(&name, self.once(stage, group, *variant, *controllers));
                        done.push(repeat.await?);
                    }
                }
            }
            all.extend(repeats.into_iter().map(|(variant, repeats)| {
                let selection = select(&others(&repeats), self.rules.others_cores, self.rules.repeats);
                Measured {
                    variant,
                    controllers: *controllers,
                    repeats,
                    kept: selection.kept,
                    disturbed: selection.disturbed,
                }
            }));
        }
        Ok(all)
    }

    async fn once(
        &self,
        stage: &Stage,
        group: Option<&MemoryGroup>,
        variant: Variant,
        controllers: usize,
    ) -> Result<Repeat> {
        let context = || format!("`{}` with {controllers} controllers", variant.id);
        let ring = stage.ring(controllers).await.with_context(context)?;
        let launcher = group.map(MemoryGroup::launcher).unwrap_or_default();
        let contestant = Contestant::prepare(variant, stage, &ring, launcher).await.with_context(context)?;
        stage.until_quiet(self.rules.others_cores, Duration::from_secs(self.rules.patience_seconds)).await?;
        measure(stage, &ring, variant, &self.procedure, contestant, group).await
    }
}

fn others(repeats: &[Repeat]) -> Vec<f64> {
    repeats.iter().map(|repeat| repeat.others_cores).collect()
}
