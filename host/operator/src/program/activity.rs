//! Whether a program has something to do: it computes, or an answer to it is under way.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;
use wasm_operator_cluster::gateway::GuestGateway;
use wasm_operator_core::dispatch::{PAUSE, ProgramRun, WakeReason};
use wasm_operator_engine::{Turns, Usage};

use crate::guest::Guest;
use crate::host::Host;
use crate::pool::Found;
use crate::reconcile::{ask_for_forecast, await_echo};

/// What is known of one run. Told by the thread that runs the program, and by the endpoint.
pub(crate) struct Activity {
    /// The host holds this.
    host: Weak<Host>,
    gateway: Arc<GuestGateway>,
    guest: Arc<Guest>,
    run: ProgramRun,
    usage: OnceLock<Usage>,
    state: Mutex<State>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    /// The program waits for the host.
    waits: bool,
    /// When the earliest timer is due for which it waits.
    timer: Option<Instant>,
    /// Requests whose answers are not there as a whole. Watches do not count: their answers never are.
    under_way: usize,
    /// Something was sent to the program since it became idle.
    delivered: bool,
    /// Since when it is idle, if the scheduler was told that it is.
    idle_since: Option<Instant>,
    /// How often it went on after it was idle: a hibernation that was decided before is for a program that is gone.
    wakes: u64,
    /// Its memory is on disk.
    hibernated: bool,
    /// What the program held when it was hibernated last, by its page faults.
    held: u64,
    /// It was put to sleep, and has gone on since then.
    woken: Option<Woken>,
    /// A task waits until it has been quiet for a while.
    is_resting: bool,
    /// When it was woken from disk, until it sends a request or rests for longer than a loop pauses.
    asks_nothing_since: Option<Instant>,
}

/// The beginning of a turn that ends a sleep.
#[derive(Debug, PartialEq, Eq)]
struct Woken {
    at: Instant,
    reason: WakeReason,
    /// Whether its memory was on disk by then, or it was needed before.
    hibernated: bool,
}

impl State {
    /// Whether the program has become idle.
    fn rests(&mut self) -> bool {
        let rests = self.waits && self.under_way == 0 && self.idle_since.is_none();
        if rests {
            (self.idle_since, self.delivered) = (Some(Instant::now()), false);
        }
        rests
    }

    /// A request is under way, which the program most likely sent before it began to wait. Whether it counted as idle.
    fn asks(&mut self) -> bool {
        self.under_way = self.under_way.saturating_add(1);
        let rested = self.idle_since.take().is_some();
        if rested {
            self.wakes = self.wakes.wrapping_add(1);
        }
        rested
    }

    fn begins_to_rest(&mut self) -> bool {
        !std::mem::replace(&mut self.is_resting, true)
    }

    fn rest(&mut self) -> Option<(u64, Instant)> {
        self.is_resting = self.idle_since.is_some();
        self.idle_since.map(|since| (self.wakes, since))
    }

    fn has_rested(&mut self, wakes: u64) -> bool {
        let has_rested = self.idle_since.is_some() && self.wakes == wakes;
        self.is_resting &= !has_rested;
        has_rested
    }

    /// Whether the program was idle, and what ended that.
    fn goes_on(&mut self) -> Option<WakeReason> {
        self.waits = false;
        let since = self.idle_since.take()?;
        if since.elapsed() > PAUSE {
            self.asks_nothing_since = None;
        }
        self.wakes = self.wakes.wrapping_add(1);
        Some(if self.delivered { WakeReason::Event } else { WakeReason::Timer })
    }
}

/// A request of the program, from its head to the end of its answer.
pub(crate) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(crate) fn new(host: &Arc<Host>, guest: Arc<Guest>, gateway: Arc<GuestGateway>, run: ProgramRun) -> Arc<Self> {
        gateway.set_awake(true);
        let (usage, state) = (OnceLock::new(), Mutex::default());
        Arc::new(Self { host: Arc::downgrade(host), gateway, guest, run, usage, state })
    }

    /// Where to read what the program uses.
    pub(crate) fn measure(&self, usage: Usage) {
        // There is one program per run.
        let _ = self.usage.set(usage);
    }

    /// The program sends a request: it is not idle until what this returns is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> UnderWay {
        let (rested, woken) = {
            let mut state = self.state.lock();
            (state.asks(), state.asks_nothing_since.take())
        };
        if rested {
            // Its own doing, like a timer of its own.
            self.works(WakeReason::Timer);
        }
        if let (Some(woken), Some(host)) = (woken, self.host.upgrade()) {
            host.metrics.first_request(&self.guest.name, woken.elapsed());
        }
        UnderWay(self.clone())
    }

    /// Something is sent to the program.
    pub(crate) fn delivers(&self) {
        self.state.lock().delivered = true;
    }

    /// The scheduler puts the program to sleep. None: it has gone on since.
    pub(crate) fn to_be_hibernated(&self) -> Option<u64> {
        let state = self.state.lock();
        state.idle_since.map(|_| state.wakes)
    }

    /// Whether it is idle as it was when it was to be hibernated.
    pub(crate) fn is_still_idle(&self, wakes: u64) -> bool {
        self.to_be_hibernated() == Some(wakes)
    }

    /// Its memory was written to disk. It may have gone on since.
    pub(crate) fn hibernated(&self) {
        let held = self.usage.get().map_or(0, Usage::private_bytes);
        let mut state = self.state.lock();
        if state.idle_since.is_some() {
            (state.hibernated, state.held) = (true, held);
        }
    }

    /// Whether nobody waits yet until the program has been quiet for a while.
    pub(crate) fn begins_to_rest(&self) -> bool {
        self.state.lock().begins_to_rest()
    }

    /// What to wait for: this sleep, and when it began. None: it has gone on, and nobody waits any more.
    pub(crate) fn rest(&self) -> Option<(u64, Instant)> {
        self.state.lock().rest()
    }

    /// Whether this sleep has lasted until now. Then nobody waits any more.
    pub(crate) fn has_rested(&self, wakes: u64) -> bool {
        self.state.lock().has_rested(wakes)
    }

    fn rests(&self) {
        // A bookmark would end the rest.
        self.gateway.set_awake(false);
        let Some(host) = self.host.upgrade() else { return };
        if let Some(usage) = self.usage.get() {
            host.metrics.memory(&self.guest.name, usage.memory_bytes());
            let bytes = usage.private_bytes().saturating_sub(self.state.lock().held);
            host.scheduler.tell(|dispatcher, _| dispatcher.set_instance_bytes(self.guest.id, bytes));
        }
        await_echo(&host, &self.guest, &self.gateway);
        let timer = self.state.lock().timer.map(|due| host.scheduler.time(due));
        host.scheduler.tell(|dispatcher, now| dispatcher.program_waits(now, self.guest.id, self.run, timer));
        if host.forecasts.is_some() {
            ask_for_forecast(&host, &self.guest);
        }
    }

    /// Returns whether that ended a sleep.
    fn works(&self, reason: WakeReason) -> bool {
        self.gateway.set_awake(true);
        let Some(host) = self.host.upgrade() else { return false };
        if reason == WakeReason::Event {
            host.note_event(&self.guest, host.scheduler.now());
        }
        host.scheduler.tell(|dispatcher, now| dispatcher.program_works(now, self.guest.id, self.run, reason))
    }

    /// What the program touched first was read back from disk in the turn that now ends.
    fn woke(&self, Woken { at, reason, hibernated }: Woken) {
        let (Some(host), took) = (self.host.upgrade(), at.elapsed()) else { return };
        host.metrics.woke(&self.guest.name, Some(reason), Found::Component, took);
        if hibernated {
            host.scheduler.tell(|dispatcher, _| dispatcher.woke(self.guest.id, took));
        }
    }
}

impl Turns for Activity {
    fn begins(&self) {
        let (at, ended) = (Instant::now(), self.state.lock().goes_on());
        if let Some(reason) = ended {
            let slept = self.works(reason);
            let mut state = self.state.lock();
            let hibernated = std::mem::take(&mut state.hibernated);
            state.woken = slept.then_some(Woken { at, reason, hibernated });
            if slept && hibernated {
                state.asks_nothing_since = Some(at);
            }
        }
    }

    fn waits(&self, timer: Option<Instant>) {
        let (rests, woken) = {
            let mut state = self.state.lock();
            (state.waits, state.timer) = (true, timer);
            (state.rests(), state.woken.take())
        };
        if let Some(woken) = woken {
            self.woke(woken);
        }
        if rests {
            self.rests();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let rests = {
            let mut state = self.0.state.lock();
            state.under_way = state.under_way.saturating_sub(1);
            state.rests()
        };
        if rests {
            self.0.rests();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_idle_when_it_waits_and_no_answer_is_under_way() {
        let mut state = State { under_way: 1, ..State::default() };
        assert!(!state.rests(), "it computes");
        state.waits = true;
        assert!(!state.rests(), "an answer is under way");
        state.under_way = 0;
        assert!(state.rests());
        assert!(!state.rests(), "it is said once");
    }

    #[test]
    fn a_program_whose_request_is_seen_after_it_began_to_wait_is_not_idle() {
        let mut state = State { waits: true, ..State::default() };
        assert!(state.rests(), "the request is still in a socket");
        let wakes = state.wakes;
        assert!(state.asks());
        assert!(!state.rests() && state.wakes != wakes, "a hibernation that was decided before is void");
        state.under_way = 0;
        assert!(state.rests(), "the answer is there");
        assert!(state.goes_on().is_some());
        assert!(!state.asks(), "it was not idle");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_program_asks_after_a_rest_is_not_what_it_was_woken_for() {
        let woken = Some(Instant::now());
        let mut state = State { asks_nothing_since: woken, ..State::default() };
        for (rest, kept) in [(PAUSE, woken), (2 * PAUSE, None)] {
            state.waits = true;
            assert!(state.rests());
            tokio::time::advance(rest).await;
            assert!(state.goes_on().is_some());
            assert_eq!(state.asks_nothing_since, kept, "{rest:?}");
        }
    }

    #[test]
    fn one_waits_until_a_sleep_has_lasted_however_often_the_program_goes_on_meanwhile() {
        let mut state = State { waits: true, ..State::default() };
        assert!(state.rests() && state.begins_to_rest());
        let (first, _) = state.rest().unwrap();
        assert!(state.goes_on().is_some());
        state.waits = true;
        assert!(state.rests() && !state.begins_to_rest(), "somebody waits already");
        assert!(!state.has_rested(first));
        let (second, since) = state.rest().unwrap();
        assert_eq!(Some(since), state.idle_since);
        assert!(state.has_rested(second) && state.begins_to_rest(), "that one is done");
        assert!(state.goes_on().is_some());
        assert_eq!(state.rest(), None);
        assert!(state.begins_to_rest(), "nobody waits for a program that runs");
    }

    #[test]
    fn what_was_sent_since_it_became_idle_tells_an_event_from_a_timer() {
        let mut state = State { waits: true, delivered: true, ..State::default() };
        assert!(state.rests());
        assert_eq!(state.goes_on(), Some(WakeReason::Timer), "what came before is no cause");
        assert_eq!(state.goes_on(), None, "it was not idle");
        state.waits = true;
        assert!(state.rests());
        state.delivered = true;
        assert_eq!(state.goes_on(), Some(WakeReason::Event));
    }
}
