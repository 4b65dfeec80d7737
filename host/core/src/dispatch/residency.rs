//! What the dispatcher is told and asked about who is in memory, and the guests that are dropped when memory is short.

use std::time::Duration;

use wasm_operator_policy::{Costs, Explanation, Follower, Price};

use super::{Dispatcher, SleepPolicy, Step};
use crate::lifecycle::SleepReason;
use crate::slots::GuestId;
use crate::timer::Time;

impl Dispatcher {
    /// The answer to [`Step::Prepare`].
    pub fn prepared(&mut self, now: Time, id: GuestId, ready: bool) {
        let Self { guests, random, .. } = self;
        let Some(guest) = guests.get_mut(id) else { return };
        guest.preparing = false;
        if !ready {
            guest.life.prepare_failed(now, random);
            guest.prediction.give_up();
        }
        self.refresh(now, id);
    }

    /// Reports how long it took until the guest had an instance.
    pub fn woke(&mut self, id: GuestId, took: Duration) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.prediction.woke(took);
        }
    }

    /// Reports what CPU time a call took, and whether it was the first one of its instance.
    pub fn called(&mut self, id: GuestId, first: bool, cpu: Duration) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.prediction.called(first, cpu);
        }
    }

    /// Reports what the guest's instances hold while it is awake.
    pub fn set_instance_bytes(&mut self, id: GuestId, bytes: u64) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.prediction.holds(bytes);
        }
    }

    /// The guest is writing something. Those that regularly follow are made ready, where that pays.
    pub fn wrote(&mut self, now: Time, id: GuestId) {
        let at = now.since(Time::ZERO);
        self.correlations.wrote(id, at);
        let Some(price) = self.live(id).map(|guest| price(guest.prediction.policy())) else { return };
        let guests = &self.guests;
        let costs = |id: GuestId| {
            let guest = guests.get(id).filter(|guest| !guest.removed && guest.prediction.may_follow(now))?;
            guest.prediction.costs()
        };
        let followers: Vec<_> = self.correlations.followers(id, &price, costs).collect();
        for Follower { guest: id, hold, .. } in followers {
            if let Some(guest) = self.guests.get_mut(id) {
                guest.prediction.hold(now + hold);
                self.refresh(now, id);
            }
        }
    }

    /// Says that this much memory is to be given back. The idle guests whose bytes are worth the least are put to sleep.
    /// `pressure` is how many times its usual price memory is worth, from 1; it weighs in every later plan.
    pub fn press(&mut self, excess: u64, pressure: f32) {
        self.excess = excess;
        for guest in self.guests.values_mut() {
            guest.prediction.press(pressure);
        }
    }

    /// Takes a forecast of the guest's next event, from someone who knows the past as of [`Dispatcher::idle_since`].
    pub fn advise(&mut self, now: Time, id: GuestId, next: Time) {
        let Some(guest) = self.live(id) else { return };
        if let Some(since) = guest.prediction.idle_since() {
            let timer = guest.timer();
            guest.prediction.advise(next.since(since), timer);
        }
        self.refresh(now, id);
    }

    /// Since when the guest has had nothing to do; None while it has, and before its first run.
    #[must_use]
    pub fn idle_since(&self, id: GuestId) -> Option<Time> {
        self.guests.get(id)?.prediction.idle_since()
    }

    /// What waking and keeping the guest costs, as measured; None before its first wake.
    #[must_use]
    pub fn costs(&self, id: GuestId) -> Option<Costs> {
        self.guests.get(id)?.prediction.costs()
    }

    /// Why the guest is, or is not, in memory; None where nothing is predicted or nothing was measured yet.
    #[must_use]
    pub fn explain(&self, id: GuestId) -> Option<Explanation> {
        let guest = self.guests.get(id).filter(|guest| !guest.removed)?;
        guest.prediction.explain(guest.timer())
    }

    /// Puts the idle guest to sleep whose bytes are worth the least, if memory is short.
    pub(super) fn relieve(&mut self, now: Time) -> Option<Step> {
        if self.excess == 0 {
            return None;
        }
        let idle = self.guests.iter().filter(|(_, guest)| {
            !guest.removed
                && guest.life.is_awake()
                && !guest.is_busy(now)
                && guest.may_be_pressed(now)
                && guest.prediction.policy() != SleepPolicy::Never
        });
        let worth = idle.map(|(id, guest)| (id, guest.prediction.value(now)));
        let Some((id, _)) = worth.min_by(|(_, one), (_, other)| one.total_cmp(other)) else {
            self.excess = 0;
            return None;
        };
        let guest = self.guests.get_mut(id)?;
        guest.life.sleep(now);
        guest.prediction.give_up();
        self.excess = self.excess.saturating_sub(guest.prediction.bytes().max(1));
        self.refresh(now, id);
        Some(Step::Sleep(id, SleepReason::Pressure))
    }
}

fn price(policy: SleepPolicy) -> Price {
    match policy {
        SleepPolicy::Predicted(settings) => settings.price,
        _ => Price::default(),
    }
}
