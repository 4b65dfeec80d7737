//! What residency, delay and work cost, in one currency: seconds of delay.

use std::time::Duration;

use crate::plan::Outcome;
use crate::units;

const GIB: u64 = 1 << 30;

/// Byte-seconds that one second of avoided delay is worth: 12 GiB·s. What waits for a controller is capacity that is paid
/// for and unused: a core with its 4 GiB, the usual ratio of general-purpose machines. At the clouds' list prices a core
/// costs about as much as 8 GiB.
pub const DEFAULT_DELAY_PRICE: u64 = 12 * GIB;

/// Byte-seconds that one second of work costs: 8 GiB·s, a core's price as above.
pub const DEFAULT_WORK_PRICE: u64 = 8 * GIB;

/// Work of making a guest ready ahead of an event, beside the reload itself: the host's timers and the hand-over to a
/// worker. 0.2 ms on the safe side, so that guests which wake faster than that are never made ready ahead.
pub const PREPARE_OVERHEAD: Duration = Duration::from_micros(200);

/// A pressure beyond this is this: memory that scarce is worth any delay.
const MAX_PRESSURE: f32 = 1e6;

/// What waking and keeping one guest costs now, as the host measured it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// How long an event waits for the guest when it is not resident.
    pub cold_wake: Duration,
    /// How long it waits when the guest is resident.
    pub warm_wake: Duration,
    /// Bytes that residency holds beyond what the sleeping guest holds.
    pub bytes: u64,
    /// How many times its usual price memory is worth now: 1 normally, more under memory pressure. Less than 1 and NaN
    /// count as 1.
    pub pressure: f32,
}

impl Costs {
    /// Costs without memory pressure.
    #[must_use]
    pub fn new(cold_wake: Duration, warm_wake: Duration, bytes: u64) -> Self {
        Self { cold_wake, warm_wake, bytes, pressure: 1.0 }
    }
}

/// The exchange rates between delay, work and memory. Integers, so that no price is NaN; zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Byte-seconds of residency that one second of avoided delay is worth. Default [`DEFAULT_DELAY_PRICE`].
    pub delay: u64,
    /// Byte-seconds of residency that one second of reloading work is worth. Default [`DEFAULT_WORK_PRICE`].
    pub work: u64,
}

impl Default for Price {
    fn default() -> Self {
        Self { delay: DEFAULT_DELAY_PRICE, work: DEFAULT_WORK_PRICE }
    }
}

impl Price {
    /// The age at which residency has cost as much as a cold wake; None if residency costs nothing.
    #[must_use]
    pub fn break_even(&self, costs: &Costs) -> Option<Duration> {
        let terms = self.terms(costs);
        (terms.rent > 0.0).then(|| units::duration(terms.break_even()))
    }

    /// What a gap cost, in seconds of delay: the event's delay beyond a warm wake, the work, and the memory.
    #[must_use]
    pub fn cost(&self, outcome: &Outcome, costs: &Costs) -> f64 {
        self.terms(costs).cost(outcome, costs)
    }

    pub(crate) fn terms(&self, costs: &Costs) -> Terms {
        let delay_price = self.delay.max(1) as f64;
        let pressure = if costs.pressure > 1.0 { costs.pressure.min(MAX_PRESSURE) } else { 1.0 };
        let work = self.work as f64 / delay_price;
        Terms {
            rent: costs.bytes as f64 * f64::from(pressure) / delay_price,
            delay: units::seconds(costs.cold_wake.saturating_sub(costs.warm_wake)),
            work: units::seconds(costs.cold_wake) * work,
            overhead: PREPARE_OVERHEAD.as_secs_f64() * work,
            lead: units::seconds(costs.cold_wake),
        }
    }
}

/// The costs of one guest, converted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    /// Seconds of delay that one second of residency costs.
    pub(crate) rent: f64,
    /// Seconds of delay that a resident guest saves an event.
    pub(crate) delay: f64,
    /// What the work of a reload costs, in seconds of delay.
    pub(crate) work: f64,
    /// What making ready ahead costs beside the reload, in seconds of delay.
    pub(crate) overhead: f64,
    /// Seconds from the start of a reload until the guest is ready.
    pub(crate) lead: f64,
}

impl Terms {
    /// See [`Price::cost`].
    pub(crate) fn cost(&self, outcome: &Outcome, costs: &Costs) -> f64 {
        let reloads = outcome.prepared + u32::from(!outcome.hit);
        units::seconds(outcome.resident) * self.rent
            + units::seconds(outcome.delay.saturating_sub(costs.warm_wake))
            + f64::from(reloads) * self.work
            + f64::from(outcome.prepared) * self.overhead
    }

    /// The cost of an event that finds the guest not resident.
    pub(crate) fn miss(&self) -> f64 {
        self.delay + self.work
    }

    /// The cost of making the guest ready, without the residency from then on.
    pub(crate) fn prepare(&self) -> f64 {
        self.work + self.overhead + self.rent * self.lead
    }

    /// Seconds of residency that cost as much as a miss.
    pub(crate) fn break_even(&self) -> f64 {
        if self.rent > 0.0 { self.miss() / self.rent } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_age_is_a_misss_cost_over_the_rent() {
        // 1 GiB for 100 ms: the delay is worth 1.2 GiB·s and the work 0.8 GiB·s, together two seconds of residency.
        let costs = Costs::new(Duration::from_millis(100), Duration::ZERO, GIB);
        let at = Price::default().break_even(&costs).unwrap();
        assert!((at.as_secs_f64() - 2.0).abs() < 1e-9, "{at:?}");
        let pressed = Costs { pressure: 4.0, ..costs };
        assert!((Price::default().break_even(&pressed).unwrap().as_secs_f64() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn nonsense_gives_finite_terms() {
        let costs = Costs { cold_wake: Duration::MAX, warm_wake: Duration::MAX, bytes: u64::MAX, pressure: f32::NAN };
        for price in [Price { delay: 0, work: 0 }, Price { delay: u64::MAX, work: u64::MAX }, Price::default()] {
            for pressure in [f32::NAN, f32::INFINITY, -1.0] {
                let terms = price.terms(&Costs { pressure, ..costs });
                assert!(terms.rent.is_finite() && terms.miss().is_finite() && terms.prepare().is_finite(), "{terms:?}");
            }
        }
        assert_eq!(Price::default().break_even(&Costs::new(Duration::ZERO, Duration::ZERO, 0)), None);
    }

    #[test]
    fn a_cold_wake_shorter_than_a_warm_one_saves_nothing() {
        let costs = Costs::new(Duration::from_millis(1), Duration::from_millis(2), 1);
        assert_eq!(Price::default().terms(&costs).delay, 0.0);
    }
}
