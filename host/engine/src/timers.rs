//! The timers of guests. wasmtime's own would do, but it does not tell when a program that waits will go on by itself, which
//! its sleep policy wants to know.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::state::State;

/// The interface below, with the version that wasmtime 48 writes into its linker.
const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

/// The timers for which a guest waits right now, seldom more than two.
#[derive(Default)]
pub(crate) struct Timers(Mutex<Vec<Instant>>);

impl Timers {
    /// When the guest that waits will go on, if nothing else happens.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.lock().iter().min().copied()
    }

    fn note(&self, due: Instant) -> Noted<'_> {
        self.0.lock().push(due);
        Noted { timers: self, due }
    }
}

/// A timer is waited for until this is dropped.
struct Noted<'a> {
    timers: &'a Timers,
    due: Instant,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let mut all = self.timers.0.lock();
        if let Some(place) = all.iter().position(|due| *due == self.due) {
            all.swap_remove(place);
        }
    }
}

struct Timer {
    due: Instant,
    timers: Arc<Timers>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        let _noted = self.timers.note(self.due);
        sleep_until(self.due).await;
    }
}

/// Puts these timers in the place of wasmtime's. The linker allows that.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    let mut clock = linker.instance(MONOTONIC_CLOCK)?;
    clock.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, State>, (nanoseconds,): (u64,)| {
        Ok((subscribe_to(store.data_mut(), nanoseconds)?,))
    })?;
    clock.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, State>, (when,): (u64,)| {
        let now = store.data_mut().clocks().now()?;
        Ok((subscribe_to(store.data_mut(), when.saturating_sub(now))?,))
    })
}

fn subscribe_to(state: &mut State, nanoseconds: u64) -> Result<Resource<DynPollable>> {
    match Instant::now().checked_add(Duration::from_nanos(nanoseconds)) {
        Some(due) if nanoseconds > 0 => {
            let timer = state.table.push(Timer { due, timers: Arc::clone(&state.timers) })?;
            subscribe(&mut state.table, timer)
        }
        // wasmtime's lets other tasks have their turn once, or waits for ever.
        _ => state.clocks().subscribe_duration(nanoseconds),
    }
}
