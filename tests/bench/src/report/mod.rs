//! The results: a table for people, the same for programs, and pictures.

mod knobs;
mod picture;
pub(crate) mod svg;
pub(crate) mod table;

use std::path::Path;

use harness::{Context as _, Result};
use serde::Serialize;

use crate::campaign::{Campaign, Measured, Rules};
use crate::repeat::{Procedure, Repeat};
use crate::statistics::Spread;
use crate::system::{Machine, Memory};
use crate::variant::Setting;
use knobs::Knob;

/// How the components of the `-distinct` variants were made distinct.
const DISTINCT: &str = "Distinct components: other digits were written into a string of each component's data segment (a path of the \
    standard library's sources), as if another string had been compiled in. Each has a digest and a compiled file of its own, which \
    is checked before each start, so nothing of one guest's code or data can be shared with another's.";

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    started: String,
    machine: Machine,
    kubernetes: String,
    #[serde(flatten)]
    setting: Setting,
    procedure: Procedure,
    rules: Rules,
    /// Why there are no figures of a cgroup, if there are none.
    no_cgroup: Option<String>,
    distinct: &'static str,
    knobs: Vec<Knob>,
    rows: Vec<Row>,
}

/// One variant with one number of controllers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    variant: &'static str,
    title: &'static str,
    controllers: usize,
    /// Of the repeats that count, how many were disturbed.
    disturbed: usize,
    /// Why there are no further repeats, if one failed.
    failure: Option<String>,
    /// The repeats that count.
    repeats: Vec<Repeat>,
    /// Those that do not, because others used the machine.
    left_out: Vec<Repeat>,
}

impl Row {
    fn new(measured: &Measured, rules: &Rules) -> Self {
        let selection = measured.selection(rules);
        let (mut repeats, mut left_out) = (Vec::new(), Vec::new());
        for (place, repeat) in measured.repeats.iter().enumerate() {
            if selection.kept.contains(&place) { &mut repeats } else { &mut left_out }.push(repeat.clone());
        }
        Self {
            variant: measured.variant.id,
            title: measured.variant.title,
            controllers: measured.controllers,
            disturbed: selection.disturbed,
            failure: measured.failure.clone(),
            repeats,
            left_out,
        }
    }

    fn spread(&self, figure: impl Fn(&Repeat) -> f64) -> Option<Spread> {
        Spread::of(self.repeats.iter().map(figure))
    }

    /// None as well when any repeat has none.
    fn spread_of_some(&self, figure: impl Fn(&Repeat) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.repeats.iter().map(figure).collect::<Option<Vec<_>>>()?)
    }

    fn median(&self, figure: impl Fn(&Repeat) -> f64) -> f64 {
        self.spread(figure).map_or(0.0, |spread| spread.median)
    }
}

/// A moment at which memory was looked at: its name, and where the figures are.
type Phase = (&'static str, fn(&Repeat) -> &Memory);

/// All of them.
const PHASES: [Phase; 3] =
    [("idle", |repeat| &repeat.idle), ("under load", |repeat| &repeat.load), ("after load", |repeat| &repeat.after)];

impl Results {
    /// Of a campaign.
    pub(crate) fn new(
        started: jiff::Timestamp,
        machine: &Machine,
        kubernetes: &str,
        campaign: &Campaign,
        measured: &[Measured],
        no_cgroup: Option<&str>,
    ) -> Self {
        Self {
            started: started.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            knobs: knobs::all(machine.cores),
            machine: machine.clone(),
            kubernetes: kubernetes.to_owned(),
            setting: campaign.setting,
            procedure: campaign.procedure,
            rules: campaign.rules,
            no_cgroup: no_cgroup.map(str::to_owned),
            distinct: DISTINCT,
            rows: measured.iter().map(|measured| Row::new(measured, &campaign.rules)).collect(),
        }
    }

    /// The numbers of controllers, in the order of the rows.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.rows.iter().map(|row| row.controllers).collect();
        sizes.dedup();
        sizes
    }

    /// Those with figures.
    fn rows_with(&self, controllers: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.controllers == controllers && !row.repeats.is_empty())
    }

    /// What failed, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let text = |row: &Row| {
            let failure = row.failure.as_ref()?;
            Some(format!(
                "{} with {} controllers failed after {} repeats: {failure}",
                row.variant,
                row.controllers,
                row.repeats.len() + row.left_out.len()
            ))
        };
        self.rows.iter().filter_map(text).collect()
    }
}

/// Writes `results.md`, `results.json`, `memory.svg` and `latency.svg`.
pub(crate) fn write(results: &Results, directory: &Path) -> Result<()> {
    let save = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
    };
    save("results.json", &serde_json::to_string_pretty(results)?)?;
    save("results.md", &table::markdown(results))?;
    save("memory.svg", &picture::memory(results))?;
    save("latency.svg", &picture::latency(results))
}

/// Prints what `results.md` has.
pub(crate) fn print(results: &Results) -> Result<()> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), table::markdown(results).as_bytes())?)
}
