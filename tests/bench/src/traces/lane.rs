//! One guest that is driven by one trace, in one host.

use std::time::Duration;

use harness::ring::{guest, with_ballast};
use harness::{Guest, Host, Metrics, Result};

use super::guest::Program;
use super::trace::Sequence;
use crate::cache;
use crate::stage::Stage;
use crate::variant::Sleep;

/// How much later than the one before a guest gets the same trace, so that they do not wait for each other.
const BETWEEN_GUESTS: Duration = Duration::from_millis(97);

/// A guest, the namespace that its events are written to, and the one that it answers in.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) guest: String,
    pub(super) program: &'static str,
    pub(super) trace: String,
    pub(super) from: String,
    pub(super) to: String,
    /// From the start of the replay.
    pub(super) events: Vec<Duration>,
}

/// A host whose guests all sleep in the same way.
pub(super) struct Side {
    pub(super) sleep: Sleep,
    pub(super) host: Host,
    pub(super) lanes: Vec<Lane>,
}

impl Side {
    /// Makes the namespaces and starts the host.
    pub(super) async fn start(stage: &Stage, sleep: Sleep, programs: &[Program], traces: &[Sequence]) -> Result<Self> {
        let side = format!("trace-{}", sleep.name().to_lowercase());
        let (mut lanes, mut guests) = (Vec::new(), Vec::new());
        for program in programs {
            for trace in traces {
                let number = lanes.len();
                let guest = format!("trace-{number}");
                let from = stage.space().namespace(&format!("{side}-{number}-in")).await?;
                let to = stage.space().namespace(&format!("{side}-{number}-out")).await?;
                guests.push(configured(&guest, &from, &to, program, sleep));
                let shift = BETWEEN_GUESTS * u32::try_from(number)?;
                let events = trace.events.iter().map(|event| *event + shift).collect();
                lanes.push(Lane { guest, program: program.name, trace: trace.name.clone(), from, to, events });
            }
        }
        let builder = stage.space().host().named(&side).cache(&cache::compiled()?).watching_everywhere();
        let mut host = builder.guests(guests).prepare().await?;
        host.start().await?;
        host.until_ready().await?;
        Ok(Self { sleep, host, lanes })
    }
}

fn configured(name: &str, from: &str, to: &str, program: &Program, sleep: Sleep) -> Guest {
    let guest = guest(name, from, to).wasm(&program.wasm).set("sleep", sleep.configuration());
    with_ballast(guest, program.ballast)
}

/// What the host counted of a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    /// Instances that were made.
    pub(super) wakes: f64,
    /// Seconds with an instance.
    pub(super) resident_seconds: f64,
    /// Events that found the guest in memory.
    pub(super) hits: f64,
    /// Events that had to wake it.
    pub(super) misses: f64,
    /// Times that it was made ready for nothing.
    pub(super) wasted: f64,
}

impl Counts {
    /// Of one guest.
    pub(super) fn of(metrics: &Metrics, guest: &str) -> Self {
        let outcome =
            |outcome| metrics.sum("wasm_operator_guest_prediction_total", &[("guest", guest), ("outcome", outcome)]);
        Self {
            wakes: metrics.sum("wasm_operator_guest_wakes_total", &[("guest", guest)]),
            resident_seconds: metrics.sum("wasm_operator_guest_resident_seconds_total", &[("guest", guest)]),
            hits: outcome("hit"),
            misses: outcome("miss"),
            wasted: outcome("wasted"),
        }
    }

    /// What came after `before`.
    #[must_use]
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            wakes: self.wakes - before.wakes,
            resident_seconds: self.resident_seconds - before.resident_seconds,
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            wasted: self.wasted - before.wasted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_one_guest() {
        let text = "wasm_operator_guest_prediction_total{guest=\"a\",outcome=\"hit\"} 3\n\
            wasm_operator_guest_prediction_total{guest=\"a\",outcome=\"miss\"} 2\n\
            wasm_operator_guest_prediction_total{guest=\"b\",outcome=\"hit\"} 9\n\
            wasm_operator_guest_wakes_total{guest=\"a\",reason=\"change\"} 1\n\
            wasm_operator_guest_wakes_total{guest=\"a\",reason=\"initial\"} 1\n\
            wasm_operator_guest_resident_seconds_total{guest=\"a\"} 1.5\n";
        let counts = Counts::of(&Metrics::parse(text), "a");
        assert_eq!(counts, Counts { wakes: 2.0, resident_seconds: 1.5, hits: 3.0, misses: 2.0, wasted: 0.0 });
        assert_eq!(counts.since(&counts), Counts::default());
    }
}
