//! All variants in turn, round after round, until each has enough quiet repeats.

use std::time::Duration;

use harness::{Context as _, Result};
use serde::Serialize;
use wasm_operator_devel::Progress;

use crate::contestant::Contestant;
use crate::repeat::{Procedure, Repeat, measure};
use crate::stage::Stage;
use crate::statistics::{Selection, quiet, select};
use crate::system::MemoryGroup;
use crate::variant::{Setting, Variant};

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Campaign {
    /// In the order of the results.
    pub(crate) variants: Vec<Variant>,
    /// What all controllers are given.
    pub(crate) setting: Setting,
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
    /// Why there are no further ones, if one failed.
    pub(crate) failure: Option<String>,
}

impl Measured {
    fn wants_more(&self, rules: &Rules) -> bool {
        self.failure.is_none() && quiet(&self.others(), rules.others_cores) < rules.repeats
    }

    /// The repeats that count.
    pub(crate) fn selection(&self, rules: &Rules) -> Selection {
        select(&self.others(), rules.others_cores, rules.repeats)
    }

    fn others(&self) -> Vec<f64> {
        self.repeats.iter().map(|repeat| repeat.others_cores).collect()
    }
}

impl Campaign {
    /// Measures everything. Variants take turns, so that what changes over time meets all of them. One that fails is left out
    /// from then on. What there is so far is given to `save` after each number of controllers: a run takes hours.
    pub(crate) async fn run(
        &self,
        stage: &Stage,
        mut save: impl FnMut(&[Measured]) -> Result<()>,
    ) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        for controllers in &self.sizes {
            let variants = self.variants.iter().filter(|variant| variant.runs_with(*controllers));
            let new = |variant: &Variant| Measured {
                variant: *variant,
                controllers: *controllers,
                repeats: Vec::new(),
                failure: None,
            };
            let mut measured: Vec<Measured> = variants.map(new).collect();
            for round in 1..=self.rules.attempts {
                for one in measured.iter_mut().filter(|one| one.wants_more(&self.rules)) {
                    let name = format!("{} with {controllers}, repeat {round}", one.variant.id);
                    let repeat = self.once(stage, one.variant, *controllers);
                    match Progress::default().during(&name, repeat).await {
                        Ok(repeat) => one.repeats.push(repeat),
                        Err(error) => {
                            // Without the control plane nothing else can be measured either.
                            stage.ensure_alive()?;
                            Progress::default().line(&format!("  failed: {error:#}"));
                            one.failure = Some(format!("{error:#}"));
                        }
                    }
                }
            }
            all.extend(measured);
            save(&all)?;
        }
        Ok(all)
    }

    async fn once(&self, stage: &Stage, variant: Variant, controllers: usize) -> Result<Repeat> {
        let context = || format!("`{}` with {controllers} controllers", variant.id);
        let course = stage.course(&self.setting, controllers).await.with_context(context)?;
        // Each repeat has a group of its own: file pages stay charged to the group that read them first.
        let group = MemoryGroup::create().ok();
        let launcher = group.as_ref().map(MemoryGroup::launcher).unwrap_or_default();
        let contestant = Contestant::prepare(variant, stage, &course, launcher).await.with_context(context)?;
        stage.until_quiet(self.rules.others_cores, Duration::from_secs(self.rules.patience_seconds)).await?;
        measure(stage, &course, variant, &self.procedure, contestant, group.as_ref()).await
    }
}
