//! Forecasts of the next gap, and the residency that follows from one.

use std::time::Duration;

use crate::plan::Plan;
use crate::price::Terms;
use crate::rule::Rule;
use crate::units;

/// The weight of the newest gap in a level. The usual choice for short histories (Gardner 1985: 0.1 to 0.3).
const LEVEL: f32 = 0.3;

/// The weight of the newest change of the level in Holt's trend.
const TREND: f32 = 0.1;

/// The weight of the newest forecast's error.
const ERROR: f32 = 0.2;

/// A window reaches this many mean absolute errors to either side of the forecast. If errors are Laplace distributed, a share
/// of exp(-3) = 5 % of the events is outside.
const REACH: f64 = 3.0;

/// The share of events that a window misses, as above.
const OUTSIDE: f64 = 0.049_787_068;

/// A window reaches at least so far to either side, as a share of the forecast and in seconds: what timers and the way of
/// an event vary by even if all gaps were equal so far.
const LEAST_REACH: (f64, f64) = (0.01, 0.01);

/// How wrong a forecaster was lately: the smoothed absolute error in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Error(Option<f32>);

impl Error {
    pub(crate) fn learn(&mut self, forecast: Option<f64>, gap: f64) {
        if let Some(forecast) = forecast {
            let error = (forecast - gap).abs() as f32;
            let mean = self.0.unwrap_or(error);
            self.0 = Some(mean + ERROR * (error - mean));
        }
    }
}

/// Simple exponential smoothing: level += 0.3 × (gap - level). The forecast is the level.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ses {
    level: Option<f32>,
    pub(crate) error: Error,
}

impl Ses {
    pub(crate) fn forecast(&self) -> Option<f64> {
        self.level.map(f64::from)
    }

    pub(crate) fn learn(&mut self, gap: f64) {
        self.error.learn(self.forecast(), gap);
        let level = self.level.unwrap_or(gap as f32);
        self.level = Some(level + LEVEL * (gap as f32 - level));
    }
}

/// Holt's linear method: the level follows gap and trend, the trend follows the level's changes. The forecast is their sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holt {
    level: Option<f32>,
    trend: f32,
    pub(crate) error: Error,
}

impl Holt {
    pub(crate) fn forecast(&self) -> Option<f64> {
        self.level.map(|level| f64::from(level + self.trend).max(0.0))
    }

    pub(crate) fn learn(&mut self, gap: f64) {
        self.error.learn(self.forecast(), gap);
        let Some(before) = self.level else {
            self.level = Some(gap as f32);
            return;
        };
        let expected = before + self.trend;
        let level = expected + LEVEL * (gap as f32 - expected);
        self.trend += TREND * (level - before - self.trend);
        self.level = Some(level);
    }
}

/// Resident until that has cost as much as a miss: at most twice the cost of the best time to drop, whatever the gap
/// (Karlin et al. 1988).
pub(crate) fn ski_rental(rule: Rule, terms: &Terms) -> Plan {
    Plan::resident_until(rule, units::duration(terms.break_even()))
}

/// The cheapest of three plans if the gap is the forecast give or take the error: resident from the start to the end of the
/// window, made ready for the window, or neither. Without a forecast or an error to judge it by, ski-rental.
pub(crate) fn plan(rule: Rule, forecast: Option<f64>, error: Error, terms: &Terms) -> Plan {
    let (Some(forecast), Error(Some(error))) = (forecast, error) else {
        return ski_rental(rule, terms);
    };
    let (share, least) = LEAST_REACH;
    let reach = (REACH * f64::from(error)).max(share * forecast).max(least);
    let stay = terms.rent * forecast + OUTSIDE / 2.0 * terms.miss();
    let prepare = terms.prepare() + terms.rent * reach + OUTSIDE * terms.miss();
    let drop = terms.miss();
    let none = Plan::immediately(rule);
    if stay <= prepare.min(drop) {
        none.with(Duration::ZERO, units::duration(forecast + reach))
    } else if prepare < drop {
        none.ready_between(terms, forecast - reach, forecast + reach)
    } else {
        none
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Costs, Price};

    /// Break-even after 20 s, of which 12 s are for the delay.
    fn terms() -> Terms {
        let costs = Costs::new(Duration::from_millis(100), Duration::ZERO, 100 << 20);
        Price { delay: 12_000 << 20, work: 8_000 << 20 }.terms(&costs)
    }

    #[test]
    fn ses_follows_its_formula() {
        let mut ses = Ses::default();
        assert_eq!(ses.forecast(), None);
        for (gap, level) in [(10.0, 10.0), (20.0, 13.0), (13.0, 13.0), (3.0, 10.0)] {
            ses.learn(gap);
            assert!((ses.forecast().unwrap() - level).abs() < 1e-5, "{ses:?}");
        }
        // Errors 10, 0, 10, the first as it is: 10, 8, 8.4.
        assert!((f64::from(ses.error.0.unwrap()) - 8.4).abs() < 1e-5, "{ses:?}");
    }

    #[test]
    fn holt_follows_its_formula() {
        let mut holt = Holt::default();
        holt.learn(10.0);
        assert_eq!(holt.forecast(), Some(10.0));
        holt.learn(20.0); // level 13, trend 0.3
        assert!((holt.forecast().unwrap() - 13.3).abs() < 1e-5);
        holt.learn(13.3); // level 13.3, trend 0.3
        assert!((holt.forecast().unwrap() - 13.6).abs() < 1e-5);
    }

    #[test]
    fn holt_never_forecasts_a_negative_gap() {
        let mut holt = Holt::default();
        (0..100).rev().for_each(|gap| holt.learn(f64::from(gap) * 10.0));
        (0..20).for_each(|_| holt.learn(0.0));
        assert!(holt.forecast().unwrap() >= 0.0);
    }

    #[test]
    fn a_short_forecast_keeps_a_sharp_one_prepares_and_a_vague_one_drops() {
        let seconds = |plan: Plan| {
            plan.intervals().iter().map(|i| (i.from.as_secs_f64(), i.until.as_secs_f64())).collect::<Vec<_>>()
        };
        let plan = |forecast, error| seconds(plan(Rule::Ses, Some(forecast), Error(Some(error)), &terms()));
        assert_eq!(plan(5.0, 0.5), [(0.0, 6.5)]);
        assert_eq!(plan(100.0, 0.5), [(98.4, 101.5)]);
        assert_eq!(plan(100.0, 10.0), []);
        assert_eq!(seconds(super::plan(Rule::Ses, Some(1.0), Error(None), &terms())), [(0.0, 20.0)]);
    }
}
