//! `SES`, `Holt` and `Winter`: exponential smoothing of the level, of level and trend, of level, trend and season, all additive.
//!
//! Formulas: Hyndman, Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, sections 8.1 to 8.3, in the form
//! that statsmodels uses (`b' = β (l' - l) + (1 - β) b`, `β ≤ α`, `γ ≤ 1 - α`). Smoothing parameters and initial states are
//! those with the least squared errors of prediction one step ahead. The errors are linear in the initial states, so these follow
//! from the parameters by linear least squares (variable projection: Golub, Pereyra, SIAM J. Numer. Anal. 10, 1973).

use std::collections::VecDeque;

use super::least_squares::{dot, least_squares};
use super::minimize::minimize;

/// The next value by `SES`; `None` with fewer values than unknowns.
pub(super) fn simple(series: &[f64]) -> Option<f64> {
    let model = Model { trend: false, season: 1 };
    model.forecast(series, |[level]: [f64; 1]| Rates { level, trend: 0.0, season: 0.0 })
}

/// The next value by `Holt`; `None` with fewer values than unknowns.
pub(super) fn with_trend(series: &[f64]) -> Option<f64> {
    let model = Model { trend: true, season: 1 };
    model.forecast(series, |[level, trend]: [f64; 2]| Rates { level, trend: trend * level, season: 0.0 })
}

/// The next value by `Winter` with a season of `season` values; `None` with fewer values than unknowns, or than two seasons.
pub(super) fn with_season(series: &[f64], season: usize) -> Option<f64> {
    if series.len() < 2 * season {
        return None;
    }
    let model = Model { trend: true, season };
    model.forecast(series, |[level, trend, season]: [f64; 3]| Rates {
        level,
        trend: trend * level,
        season: season * (1.0 - level),
    })
}

/// How fast each state follows, each from 0 to 1: α, β, γ.
#[derive(Clone, Copy)]
struct Rates {
    level: f64,
    trend: f64,
    season: f64,
}

#[derive(Clone, Copy)]
struct Model {
    trend: bool,
    /// Values in a season; 1 for none.
    season: usize,
}

impl Model {
    /// Initial states to be found: level, trend, and the season's values but for its last, which level and trend stand for.
    fn unknowns(self) -> usize {
        self.season + usize::from(self.trend)
    }

    fn forecast<const N: usize>(self, series: &[f64], rates: impl Fn([f64; N]) -> Rates) -> Option<f64> {
        if series.len() <= self.unknowns() + N {
            return None;
        }
        let best = minimize(|at| self.fit(series, rates(at)).map_or(f64::NAN, |(squares, _)| squares));
        self.fit(series, rates(best)).map(|(_, next)| next)
    }

    /// With the best initial states: the squared errors, and the value after the last.
    fn fit(self, series: &[f64], rates: Rates) -> Option<(f64, f64)> {
        let nothing = vec![0.0; series.len()];
        let zero = vec![0.0; self.unknowns()];
        let columns: Vec<Vec<f64>> = (0..self.unknowns())
            .map(|at| {
                let unit: Vec<f64> = (0..self.unknowns()).map(|other| if other == at { -1.0 } else { 0.0 }).collect();
                self.states(&unit).errors(&nothing, rates).0
            })
            .collect();
        let (errors, _) = self.states(&zero).errors(series, rates);
        let initial = least_squares(&columns, &errors)?;
        let (errors, next) = self.states(&initial).errors(series, rates);
        Some((dot(&errors, &errors), next))
    }

    fn states(self, initial: &[f64]) -> States {
        let mut initial = initial.iter().copied();
        let level = initial.next().unwrap_or_default();
        let trend = if self.trend { initial.next().unwrap_or_default() } else { 0.0 };
        States { level, trend, season: initial.chain([0.0]).collect() }
    }
}

struct States {
    level: f64,
    trend: f64,
    /// The coming value's first.
    season: VecDeque<f64>,
}

impl States {
    /// The errors of prediction along the series, and the prediction of the value after it.
    fn errors(mut self, series: &[f64], rates: Rates) -> (Vec<f64>, f64) {
        let mut errors = Vec::with_capacity(series.len());
        for value in series {
            let season = self.season.pop_front().unwrap_or_default();
            let expected = self.level + self.trend;
            errors.push(value - expected - season);
            let level = rates.level * (value - season) + (1.0 - rates.level) * expected;
            self.trend = rates.trend * (level - self.level) + (1.0 - rates.trend) * self.trend;
            self.level = level;
            self.season.push_back(rates.season * (value - expected) + (1.0 - rates.season) * season);
        }
        let next = self.level + self.trend + self.season.front().copied().unwrap_or_default();
        (errors, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{found:?} instead of {expected}");
    }

    #[test]
    fn one_step_of_smoothing_is_the_textbooks() {
        let states = States { level: 10.0, trend: 1.0, season: VecDeque::from([2.0, -2.0]) };
        let (errors, next) = states.errors(&[14.0], Rates { level: 0.5, trend: 0.4, season: 0.1 });
        // level 0.5 × (14 - 2) + 0.5 × 11 = 11.5; trend 0.4 × 1.5 + 0.6 × 1 = 1.2; the next season is -2.
        assert_eq!(errors, [1.0]);
        assert!((next - 10.7).abs() < 1e-12, "{next}");
    }

    #[test]
    fn a_line_goes_on() {
        is_near(with_trend(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 7.0);
    }

    #[test]
    fn a_season_on_a_line_goes_on() {
        let series: Vec<f64> = (0..24).map(|at| 0.1 * f64::from(at) + [5.0, 1.0, 3.0][at as usize % 3]).collect();
        is_near(with_season(&series, 3), 2.4 + 5.0);
    }

    #[test]
    fn too_few_values_are_no_fit() {
        assert_eq!(simple(&[1.0, 2.0]), None);
        assert!(simple(&[1.0, 2.0, 4.0]).is_some());
        assert_eq!(with_trend(&[1.0, 2.0, 4.0, 3.0]), None);
        assert_eq!(with_season(&[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0], 4), None);
    }
}
