//! Measures what the policy itself costs: `cargo run --release -p wasm-operator-policy --example speed`.

#![allow(clippy::disallowed_types, reason = "measures real time, with no runtime around")]

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use wasm_operator_policy::{Correlations, Costs, End, GuestPolicy, Price, Rule, Settings};

const BATCHES: u32 = 200;
const CALLS: u32 = 500;

fn main() -> io::Result<()> {
    let costs = Costs::new(Duration::from_millis(100), Duration::ZERO, 10 << 20);
    let mut policy = GuestPolicy::new(Settings::default());
    let gap = |n: u32| Duration::from_millis(u64::from(n.wrapping_mul(2_654_435_761) % 100_000));
    let gaps = time(|n| policy.gap(gap(n), End::Event, &costs));
    let plan = |rule| {
        time(|_| {
            black_box(policy.plan_by(rule, &costs));
        })
    };
    let (cheapest, dearest) = (plan(Rule::Ses), plan(Rule::Hazard));
    let values = time(|n| {
        black_box(policy.value_at(gap(n), &costs));
    });

    let mut correlations = Correlations::new();
    let at = |n: u32| Duration::from_millis(u64::from(n) * 20);
    let pairs = time(|n| {
        correlations.wrote(n % 1000, at(n));
        correlations.woke((n + 1) % 1000, at(n));
        black_box(correlations.followers(n % 1000, &Price::default(), |_| Some(costs)).count());
    });

    let mut out = io::stdout().lock();
    writeln!(out, "a guest's policy: {} bytes", size_of::<GuestPolicy>())?;
    writeln!(out, "gap: {gaps:?}, plan: {cheapest:?} (ses) to {dearest:?} (hazard), value: {values:?}")?;
    writeln!(out, "write, wake and followers among 1000 guests: {pairs:?}")
}

/// The mean time of a call in the fastest of the batches: others use the machine as well.
fn time(mut call: impl FnMut(u32)) -> Duration {
    let batch = |batch| {
        let start = Instant::now();
        (batch * CALLS..(batch + 1) * CALLS).for_each(&mut call);
        start.elapsed() / CALLS
    };
    (0..BATCHES).map(batch).min().unwrap_or_default()
}
