//! The results: a table for people, and the same for programs.

use std::fmt::Write as _;
use std::path::Path;

use harness::{Context as _, Result};
use serde::Serialize;

use super::prepare::Deployed;
use super::repeat::{Plan, Repeat};
use super::stage::Versions;
use crate::statistics::Spread;
use crate::system::Machine;

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Results {
    pub(super) started: String,
    pub(super) machine: Machine,
    pub(super) node: Versions,
    pub(super) plan: Plan,
    pub(super) rows: Vec<Row>,
    pub(super) limits: Vec<Limits>,
}

/// One variant with one number of controllers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) variant: Deployed,
    pub(super) controllers: usize,
    pub(super) repeats: Vec<Repeat>,
}

/// The smallest memory limit of a variant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limits {
    pub(super) variant: Deployed,
    pub(super) controllers: usize,
    pub(super) pods: usize,
    /// MiB for each pod; None: it did not even bear the most that it took without a limit.
    pub(super) mebibytes: Option<u64>,
    /// 95th percentile of a hop without a limit, in milliseconds.
    pub(super) p95_without: f64,
    /// The measurement with that limit.
    pub(super) with: Option<Repeat>,
}

impl Row {
    fn spread(&self, figure: fn(&Repeat) -> f64) -> String {
        let Some(Spread { median, least, most }) = Spread::of(self.repeats.iter().map(figure)) else {
            return "-".to_owned();
        };
        if self.repeats.len() == 1 {
            number(median)
        } else {
            format!("{} ({}-{})", number(median), number(least), number(most))
        }
    }
}

/// Writes `results.md` and `results.json`.
pub(super) fn write(results: &Results, directory: &Path) -> Result<()> {
    let save = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
    };
    save("results.json", &serde_json::to_string_pretty(results)?)?;
    save("results.md", &markdown(results))
}

/// The table on standard output.
pub(super) fn print(results: &Results) -> Result<()> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), markdown(results).as_bytes())?)
}

fn markdown(results: &Results) -> String {
    let Results { started, machine, node, plan, .. } = results;
    let mut text = format!(
        "# Benchmark on a node\n\n{started}; {} ({} cores, {} MiB), Linux {}; Kubernetes {}, {}.\n\n\
         One image for each variant, from scratch; the host's is that of the project's Dockerfile, with the ring's component added. Memory in MiB is \
         what the cgroups are charged: the pods with their pause containers, file pages included, and the shims, of which containerd runs one \
         for each pod. File pages are dropped before the first pod. Idle: {} s after the first lap. {} hops are timed in a repeat, one nonce at a time. \
         Each figure is the median, in brackets the smallest and the largest of all repeats; others' cores are what other programs used of the machine \
         meanwhile. No limits for peers; ours has those of the project's Deployment. Peak: the most that each pod ever had, summed; ours compiles \
         its component at its first start. No program is given a `GOMEMLIMIT`, `GOMAXPROCS` or number of threads.\n",
        machine.processor,
        machine.cores,
        machine.memory,
        machine.kernel,
        node.kubernetes,
        node.runtime,
        plan.settle_seconds,
        plan.hops,
    );
    let heads = [
        "Controllers",
        "Variant",
        "Pods and shims, idle",
        "Pods",
        "Working set of the pods",
        "Shims",
        "Under load",
        "Peak of the pods",
        "Hop p50 ms",
        "p95",
        "p99",
        "Start s",
        "Restarts",
        "Others' cores",
    ];
    line(&mut text, &heads.map(str::to_owned), true);
    for row in &results.rows {
        let cells = [
            row.controllers.to_string(),
            row.variant.title().to_owned(),
            row.spread(|repeat| repeat.idle.sum()),
            row.spread(|repeat| repeat.idle.pods),
            row.spread(|repeat| repeat.idle.pods_working_set),
            row.spread(|repeat| repeat.idle.shims),
            row.spread(|repeat| repeat.load.sum()),
            row.spread(|repeat| repeat.peak),
            row.spread(|repeat| repeat.hop_p50),
            row.spread(|repeat| repeat.hop_p95),
            row.spread(|repeat| repeat.hop_p99),
            row.spread(|repeat| repeat.start_seconds),
            row.repeats.iter().map(|repeat| repeat.restarts).sum::<i32>().to_string(),
            row.spread(|repeat| repeat.others_cores),
        ];
        line(&mut text, &cells, false);
    }
    if !results.limits.is_empty() {
        text.push_str(
            "\n## The smallest memory limit\n\nThe limit of each pod, in whole MiB, at which nothing is restarted, the 95th percentile of a hop is at most \
             twice what it is without a limit, and the start takes at most three times as long. Ours starts with a component that is compiled already: the compiler needs more than the host.\n",
        );
        let heads = ["Controllers", "Variant", "Limit of a pod", "Sum of the limits", "Hop p95 ms with it", "without"];
        line(&mut text, &heads.map(str::to_owned), true);
        for limit in &results.limits {
            let of = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
            let cells = [
                limit.controllers.to_string(),
                limit.variant.title().to_owned(),
                of(limit.mebibytes),
                of(limit.mebibytes.map(|mebibytes| mebibytes * limit.pods as u64)),
                limit.with.as_ref().map_or_else(|| "-".to_owned(), |repeat| number(repeat.hop_p95)),
                number(limit.p95_without),
            ];
            line(&mut text, &cells, false);
        }
    }
    text
}

fn line(text: &mut String, cells: &[String], head: bool) {
    if head {
        text.push('\n');
    }
    let _ = writeln!(text, "| {} |", cells.join(" | "));
    if head {
        let _ = writeln!(text, "|{}", " --- |".repeat(cells.len()));
    }
}

fn number(value: f64) -> String {
    let places = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cgroups::Used;

    fn repeat(pods: f64) -> Repeat {
        Repeat {
            others_cores: 0.0,
            start_seconds: 1.0,
            idle: Used { pods, pods_working_set: pods, shims: 1.0 },
            load: Used::default(),
            peak: pods,
            hop_p50: 1.0,
            hop_p95: 2.0,
            hop_p99: 3.0,
            restarts: 0,
        }
    }

    #[test]
    fn a_row_shows_the_median_and_both_ends() {
        let row = Row { variant: Deployed::Go, controllers: 10, repeats: [3.0, 1.0, 200.0].map(repeat).into() };
        assert_eq!(row.spread(|repeat| repeat.idle.sum()), "4.00 (2.00-201)");
        assert_eq!(Row { repeats: vec![repeat(3.0)], ..row }.spread(|repeat| repeat.peak), "3.00");
    }

    #[test]
    fn a_limit_that_was_not_found_is_not_a_number() {
        let limits =
            Limits { variant: Deployed::Go, controllers: 10, pods: 10, mebibytes: None, p95_without: 2.0, with: None };
        let results = Results {
            started: String::new(),
            machine: Machine::this(),
            node: Versions { kubernetes: "v1".to_owned(), runtime: "r".to_owned() },
            plan: Plan::default(),
            rows: Vec::new(),
            limits: vec![limits],
        };
        assert!(markdown(&results).contains("| 10 | Go controller-runtime, one pod each | none | none | - | 2.00 |"));
    }
}
