//! Writes the generated traces in `prediction/traces`: `cargo run -p wasm-operator-evaluator --example generate-traces`.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a developer's tool")]

use std::fmt::Write as _;
use std::path::Path;

use rand_core::{Rng as _, SeedableRng as _};
use rand_xorshift::XorShiftRng;

/// All generated traces: file names and contents.
pub fn traces() -> Vec<(&'static str, String)> {
    vec![
        ("constant.csv", constant()),
        ("jittered.csv", jittered()),
        ("poisson.csv", poisson()),
        ("bursty.csv", bursty()),
        ("diurnal.csv", diurnal()),
        ("two-period.csv", two_period()),
        ("regime-change.csv", regime_change()),
        ("correlated.csv", correlated()),
    ]
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    for (name, text) in traces() {
        std::fs::write(folder.join(name), &text).expect("the folder of traces can be written");
        println!("{name}: {} events", text.lines().filter(|line| !line.starts_with('#')).count());
    }
}

struct Random(XorShiftRng);

impl Random {
    fn new(seed: u64) -> Self {
        Self(XorShiftRng::seed_from_u64(seed))
    }

    /// In [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.uniform()
    }

    /// A gap of a Poisson process.
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// Mean 0, standard deviation 1: the sum of twelve uniform numbers, which is near enough.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn constant() -> String {
    csv("one event each 30 s", (0..400).map(|n| f64::from(n) * 30.0))
}

fn jittered() -> String {
    let mut random = Random::new(1);
    let gaps = (0..600).map(|_| (30.0 + 1.5 * random.normal()).max(0.1));
    csv("gaps of 30 s, normally distributed, standard deviation 1.5 s", sums(gaps))
}

fn poisson() -> String {
    let mut random = Random::new(2);
    csv("a Poisson process, 60 s on average", sums((0..1000).map(|_| random.exponential(60.0))))
}

fn bursty() -> String {
    let mut random = Random::new(3);
    let mut gaps = Vec::new();
    for _ in 0..100 {
        gaps.push(random.exponential(600.0));
        let more = random.between(4.0, 20.0) as usize;
        gaps.extend((0..more).map(|_| random.between(0.1, 1.0)));
    }
    csv("bursts of 5 to 20 events 0.1 s to 1 s apart, 10 min between bursts on average", sums(gaps.into_iter()))
}

fn diurnal() -> String {
    const DAY: f64 = 86_400.0;
    const NOON: f64 = 1.0 / 60.0;
    let mut random = Random::new(4);
    let mut events = Vec::new();
    let mut at = 0.0;
    while at < 4.0 * DAY {
        // A Poisson process with the rate of noon, thinned out.
        at += random.exponential(1.0 / NOON);
        let light = (1.0 - (at / DAY * std::f64::consts::TAU).cos()) / 2.0;
        if random.uniform() < 0.02 + 0.98 * light.powi(3) {
            events.push(at);
        }
    }
    csv("a Poisson process for four days: an event per minute at noon, one per 50 min at midnight", events.into_iter())
}

fn two_period() -> String {
    const END: f64 = 8.0 * 3600.0;
    let mut random = Random::new(5);
    let mut events = Vec::new();
    for (period, jitter) in [(60.0, 0.3), (420.0, 2.0)] {
        let times = (1..).map(|n| f64::from(n) * period).take_while(|at| *at < END);
        events.extend(times.map(|at| at + jitter * (random.uniform() - 0.5)));
    }
    events.sort_by(f64::total_cmp);
    csv("two timers, each 60 s and each 7 min, for 8 h", events.into_iter())
}

fn regime_change() -> String {
    let mut random = Random::new(6);
    let mut gaps: Vec<f64> = (0..400).map(|_| random.between(1.5, 2.5)).collect();
    gaps.extend((0..150).map(|_| random.between(290.0, 310.0)));
    gaps.extend((0..300).map(|_| random.exponential(20.0)));
    csv("400 gaps of about 2 s, 150 of about 5 min, 300 of a Poisson process with 20 s", sums(gaps.into_iter()))
}

fn correlated() -> String {
    let mut random = Random::new(7);
    let mut events = Vec::new();
    let mut at = 0.0;
    for _ in 0..300 {
        at += random.exponential(600.0);
        events.push((at, "leader"));
        if random.uniform() < 0.95 {
            events.push((at + random.between(0.2, 0.8), "follower"));
        }
    }
    let end = at;
    at = random.exponential(900.0);
    while at < end {
        events.push((at, "other"));
        at += random.exponential(900.0);
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut text = "# a leader (Poisson, 10 min), a follower 0.2 s to 0.8 s after 95 % of its events, and one that has nothing to \
                    do with them\n"
        .to_owned();
    text.push_str("timestamp,guest\n");
    for (at, guest) in events {
        let start = jiff::Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z
        let at = start + jiff::SignedDuration::from_millis((at * 1000.0).round() as i64);
        writeln!(text, "{at:.3},{guest}").expect("a string takes all");
    }
    text
}

fn sums(gaps: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    gaps.scan(0.0, |at, gap| {
        *at += gap;
        Some(*at)
    })
}

/// Milliseconds, since the last bits of logarithms differ between machines.
fn csv(about: &str, events: impl Iterator<Item = f64>) -> String {
    let mut text = format!("# {about}\n");
    events.for_each(|at| writeln!(text, "{at:.3}").expect("a string takes all"));
    text
}
