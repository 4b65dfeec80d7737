//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use harness::{Result, target};

use crate::campaign::{Campaign, Rules};
use crate::repeat::Procedure;
use crate::stage::Shape;
use crate::traces::Replay;
use crate::variant::{self, Setting, Variant};

/// Measures the same ring of controllers as Go, as native Rust and as guests of wasm-operator, on one control plane.
#[derive(Debug, Parser)]
#[command(name = "devel/bench", version)]
pub(crate) struct Arguments {
    /// Ten controllers, fewer hops and shorter pauses, distinct components only asleep: less than five minutes
    #[arg(long)]
    quick: bool,
    /// Only these variants, by id
    #[arg(long, value_delimiter = ',', value_name = "ID,...", value_parser = Variant::parse)]
    variants: Vec<Variant>,
    /// These numbers of controllers
    #[arg(long, value_delimiter = ',', value_name = "N,...", value_parser = variant::controllers)]
    n: Vec<usize>,
    /// Repeats from quiet phases that each figure comes from
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Repeats at most, while others disturb; default: one more than --repeats, with --quick no more than --repeats
    #[arg(long)]
    attempts: Option<u16>,
    /// Cores that others may use, in the mean, while a repeat that counts is timed
    #[arg(long, default_value_t = 0.1)]
    others: f64,
    /// Hops that are timed in a repeat
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    hops: Option<u32>,
    /// Seconds without a change after the load
    #[arg(long)]
    quiet_seconds: Option<u64>,
    /// All controllers watch the same object, and one event wakes all of them, instead of a ring; without the variants of one
    /// process for all
    #[arg(long, conflicts_with = "traces")]
    star: bool,
    /// Gives each controller this much heap to hold, in MiB; only guests and the native program have such a setting
    #[arg(long, value_name = "MIB", default_value_t = 0, conflicts_with = "traces", value_parser = clap::value_parser!(u64).range(..=MOST_HEAP_MIB))]
    heap_mib: u64,
    /// Objects in each namespace; all but the one that travels never change
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["star", "traces"], value_parser = clap::value_parser!(u16).range(1..))]
    objects: u16,
    /// Reads what hibernated guests have on disk into the page cache before each lap, from which they are evicted otherwise
    #[arg(long, conflicts_with = "traces")]
    warm_page_cache: bool,
    /// Replays traces of events to guests whose wake is dear, instead of running the ring
    #[arg(long)]
    traces: bool,
    /// With --traces: files, or directories with CSV files
    #[arg(long, value_name = "PATH", default_value = "prediction/traces", requires = "traces")]
    trace: Vec<PathBuf>,
    /// With --traces: how many times as fast as they happened; default: 10
    #[arg(long, value_name = "FACTOR", requires = "traces", value_parser = speed)]
    speed: Option<f64>,
    /// With --traces: seconds that the replay to each host takes; default: 600, with --quick 60
    #[arg(long, value_name = "SECONDS", requires = "traces", value_parser = clap::value_parser!(u32).range(1..))]
    trace_seconds: Option<u32>,
    /// Where the results go; default: `bench` in the target directory
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

impl Arguments {
    /// What is to be measured.
    pub(crate) fn campaign(&self) -> Result<Campaign> {
        let setting = Setting {
            shape: if self.star { Shape::Star } else { Shape::Ring },
            heap_bytes: self.heap_mib << 20,
            objects: self.objects.into(),
        };
        let runs =
            |variant: &Variant| variant.obstacle(&setting).is_none() && (!self.quick || variant.is_in_quick_run());
        let variants = match self.variants.as_slice() {
            [] => variant::ALL.into_iter().filter(runs).collect(),
            chosen => chosen.to_vec(),
        };
        let sizes = match (self.n.is_empty(), self.quick) {
            (false, _) => self.n.clone(),
            (true, true) => vec![10],
            (true, false) => vec![1, 10, 50, 100, 500, 1_000],
        };
        variant::ensure_some(&variants, &sizes, &setting)?;
        let (hops, settle_seconds, quiet_seconds, patience_seconds) =
            if self.quick { (200, 1, 2, 2) } else { (1_000, 3, 3, 60) };
        let repeats = usize::from(self.repeats);
        let attempts = self.attempts.map_or(if self.quick { repeats } else { repeats.saturating_add(1) }, usize::from);
        Ok(Campaign {
            variants,
            setting,
            sizes,
            procedure: Procedure {
                hops: self.hops.map_or(hops, |hops| hops as usize),
                most_laps: MOST_LAPS,
                settle_seconds,
                quiet_seconds: self.quiet_seconds.unwrap_or(quiet_seconds),
                warm_page_cache: self.warm_page_cache,
            },
            rules: Rules { repeats, attempts: attempts.max(repeats), others_cores: self.others, patience_seconds },
        })
    }

    /// What is to be replayed; None: the ring is to be measured.
    pub(crate) fn replay(&self) -> Option<Replay> {
        let seconds = if self.quick { 60 } else { 600 };
        self.traces.then(|| Replay {
            traces: self.trace.clone(),
            speed: self.speed.unwrap_or(DEFAULT_SPEED),
            length: Duration::from_secs(self.trace_seconds.unwrap_or(seconds).into()),
        })
    }

    /// Where the results go.
    pub(crate) fn out(&self) -> Result<PathBuf> {
        self.out.clone().map_or_else(|| Ok(target()?.join("bench")), Ok)
    }
}

/// A lap of a single controller is one hop and a pause, so that a thousand hops would take most of a minute.
const MOST_LAPS: usize = 300;

/// Less than a guest's memory is by default, of which its own needs take a part.
const MOST_HEAP_MIB: u64 = 200;

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if SPEEDS.contains(&speed) => Ok(speed),
        _ => Err(format!("a factor from {} to {}", SPEEDS.start(), SPEEDS.end())),
    }
}

/// An hour and forty minutes of a trace in ten minutes; on two cores the guests keep up.
const DEFAULT_SPEED: f64 = 10.0;
/// Faster than this, the gaps of most traces would be shorter than a round trip.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=1_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(arguments: &[&str]) -> Result<Campaign> {
        let arguments = Arguments::try_parse_from([&["devel/bench"], arguments].concat())?;
        arguments.campaign()
    }

    #[test]
    fn quick_is_ten_controllers_of_every_variant() {
        let quick = campaign(&["--quick"]).unwrap();
        assert_eq!((quick.sizes, quick.variants.len(), quick.rules.repeats), (vec![10], variant::ALL.len() - 2, 3));
        assert_eq!(campaign(&[]).unwrap().sizes.last(), Some(&1_000));
    }

    #[test]
    fn variants_and_sizes_can_be_chosen() {
        let chosen = campaign(&["--quick", "--variants", "asleep,floor", "--n", "1,5", "--repeats", "1"]).unwrap();
        assert_eq!(chosen.variants.iter().map(|variant| variant.id).collect::<Vec<_>>(), ["asleep", "floor"]);
        assert_eq!((chosen.sizes, chosen.rules.attempts), (vec![1, 5], 1));
    }

    #[test]
    fn a_star_leaves_out_what_knows_only_the_ring() {
        let star = campaign(&["--star"]).unwrap();
        assert_eq!((star.setting.shape, star.variants.len()), (Shape::Star, variant::ALL.len() - 3));
    }

    #[test]
    fn traces_are_replayed_only_when_asked_for() {
        let replay =
            |arguments: &[&str]| Arguments::try_parse_from([&["devel/bench"], arguments].concat()).unwrap().replay();
        assert!(replay(&[]).is_none());
        let chosen = replay(&["--traces", "--trace", "a.csv", "--speed", "2.5", "--trace-seconds", "9"]).unwrap();
        assert_eq!((chosen.speed, chosen.length, chosen.traces), (2.5, Duration::from_secs(9), vec!["a.csv".into()]));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for bad in [
            &["--variants", "java"][..],
            &["--n", "0"],
            &["--star", "--variants", "asleep,floor"],
            &["--star", "--traces"],
            &["--star", "--objects", "20"],
            &["--objects", "0"],
            &["--repeats", "0"],
            &["--hops", "0"],
            &["--variants", "go-each", "--n", "1000"],
            &["--traces", "--speed", "0"],
            &["--traces", "--speed", "NaN"],
            &["--speed", "2"],
        ] {
            assert!(campaign(bad).is_err(), "{bad:?}");
        }
    }
}
