//! Why a guest is in memory, or is not.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use wasm_operator_config::SleepMode;
use wasm_operator_core::dispatch::{State, Tally};
use wasm_operator_policy::Explanation;

use crate::host::Host;

/// The answer of `wasm-operator why`. `Display` writes it for people.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Why {
    guest: String,
    state: &'static str,
    mode: SleepMode,
    /// Seconds without work; None while there is some, and before the first run.
    idle: Option<f64>,
    /// Seconds that a wake takes, as measured lately; None before the first wake.
    wake: Option<f64>,
    /// Bytes that the guest's instances hold while it is awake, as measured last.
    bytes: u64,
    hits: u64,
    misses: u64,
    wasted: u64,
    /// Seconds of delay that events were saved.
    delay_saved: f64,
    /// None where nothing is predicted, or not yet.
    prediction: Option<Explanation>,
}

impl Why {
    /// What there is to say of the guest of that name; None if there is none.
    pub(crate) fn ask(host: &Host, name: &str) -> Option<Self> {
        let guest = host.all().into_iter().find(|guest| &*guest.name == name)?;
        let mode = guest.spec().sleep.mode;
        host.scheduler.ask(|dispatcher, now| {
            let snapshot = dispatcher.snapshot(now, guest.id)?;
            let Tally { hits, misses, wasted, delay_saved } = snapshot.predicted;
            let costs = dispatcher.costs(guest.id);
            Some(Self {
                guest: name.to_owned(),
                state: word(snapshot.state),
                mode,
                idle: dispatcher.idle_since(guest.id).map(|since| now.since(since).as_secs_f64()),
                wake: costs.map(|costs| costs.cold_wake.as_secs_f64()),
                bytes: costs.map_or(0, |costs| costs.bytes),
                hits,
                misses,
                wasted,
                delay_saved: delay_saved.as_secs_f64(),
                prediction: dispatcher.explain(guest.id),
            })
        })
    }
}

/// A state in one word, as in metrics.
pub(crate) fn word(state: State) -> &'static str {
    match state {
        State::Loading => "loading",
        State::Cold => "cold",
        State::Dormant => "dormant",
        State::Hibernated => "hibernated",
        State::Awake => "awake",
        State::Failed { .. } => "failed",
        State::Suspended => "suspended",
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest `{}` is {}", self.guest, self.state)?;
        match self.idle {
            Some(idle) => writeln!(f, ", idle for {idle:.1}s")?,
            None => writeln!(f)?,
        }
        writeln!(f, "sleep mode: {:?}", self.mode)?;
        if let Some(wake) = self.wake {
            let wake = Duration::from_secs_f64(wake);
            writeln!(f, "a wake takes {wake:.1?} and the awake guest holds {} KiB, as measured", self.bytes >> 10)?;
        }
        match (&self.prediction, self.mode) {
            (Some(prediction), _) => {
                let Self { hits, misses, wasted, delay_saved, .. } = self;
                writeln!(f, "events: {hits} found it in memory, {misses} had to wake it, {delay_saved:.3}s saved")?;
                writeln!(f, "made ready in vain: {wasted}")?;
                write!(f, "{prediction}")
            }
            (None, SleepMode::Predicted) => writeln!(f, "nothing is predicted before the guest's first run"),
            (None, _) => writeln!(f, "nothing is predicted in this mode"),
        }
    }
}
