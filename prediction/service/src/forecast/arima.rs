//! `ARIMA` of order (2, 0, 0) with a mean, and `SARIMA` of order (2, 0, 0) × (1, 0, 0) with the season that the history shows:
//! `(1 - a B - b B²)(1 - c Bˢ)(x - mean) = noise`.
//!
//! Exact Gaussian maximum likelihood over the stationary weights, as statsmodels' `ARIMA`. The first values are predicted from
//! the fewer that there are, by the Durbin-Levinson recursion run downwards (Brockwell, Davis, "Time Series: Theory and Methods",
//! sections 5.2 and 8.7); mean and variance of the noise follow from the weights, which leaves two or three parameters.

use super::least_squares::dot;
use super::minimize::minimize;

/// Partial autocorrelations stay this far from 1, where the process is no longer stationary.
const MARGIN: f64 = 1e-6;
/// Two weights, the mean and the variance; one more equation than those.
const MIN_VALUES: usize = 5;

/// The next value of a process of order (2, 0, 0); `None` with fewer values than parameters.
pub(super) fn forecast(series: &[f64]) -> Option<f64> {
    if series.len() < MIN_VALUES {
        return None;
    }
    let weights = |[one, two]: [f64; 2]| second_order(one, two).to_vec();
    let best =
        minimize(|at| Predictor::new(weights(at)).and_then(|predictor| predictor.deviance(series)).unwrap_or(f64::NAN));
    Predictor::new(weights(best))?.next(series)
}

/// The same with a season of `season` values; `None` with fewer than two seasons.
pub(super) fn seasonal_forecast(series: &[f64], season: usize) -> Option<f64> {
    if series.len() < (2 * season).max(MIN_VALUES + 1) {
        return None;
    }
    let weights = |[one, two, seasonal]: [f64; 3]| product(second_order(one, two), inside(seasonal), season);
    let best =
        minimize(|at| Predictor::new(weights(at)).and_then(|predictor| predictor.deviance(series)).unwrap_or(f64::NAN));
    Predictor::new(weights(best))?.next(series)
}

/// From [0, 1] to a correlation inside (-1, 1).
fn inside(parameter: f64) -> f64 {
    (2.0 * parameter - 1.0) * (1.0 - MARGIN)
}

/// All stationary weights of the second order, by their partial autocorrelations (Monahan, Biometrika 71, 1984).
fn second_order(one: f64, two: f64) -> [f64; 2] {
    let (one, two) = (inside(one), inside(two));
    [one * (1.0 - two), two]
}

/// The weights of both factors multiplied out, those of lag 1 first.
fn product(weights: [f64; 2], seasonal: f64, season: usize) -> Vec<f64> {
    let mut all = vec![0.0; season + 2];
    let mut add = |lag: usize, weight: f64| {
        if let Some(at) = lag.checked_sub(1).and_then(|at| all.get_mut(at)) {
            *at += weight;
        }
    };
    add(season, seasonal);
    for (lag, weight) in (1..).zip(weights) {
        add(lag, weight);
        add(lag + season, -seasonal * weight);
    }
    all
}

/// Predictors from no past value, from one, ... from all that have a weight, with the variance of each one's error, that of
/// the noise being 1.
struct Predictor {
    orders: Vec<(Vec<f64>, f64)>,
}

impl Predictor {
    /// `None` when the process is not stationary.
    fn new(weights: Vec<f64>) -> Option<Self> {
        let mut orders = vec![(weights, 1.0)];
        while let Some((weights, variance)) = orders.last() {
            let Some((&reflection, shorter)) = weights.split_last() else { break };
            let rest = 1.0 - reflection * reflection;
            if rest.is_nan() || rest <= 0.0 {
                return None;
            }
            let shorter =
                shorter.iter().zip(shorter.iter().rev()).map(|(weight, mirror)| (weight + reflection * mirror) / rest);
            let next = (shorter.collect(), variance / rest);
            orders.push(next);
        }
        orders.reverse();
        Some(Self { orders })
    }

    /// Each value's error is `value - mean * share`; yields (value, share, variance).
    fn errors<'a>(&'a self, series: &'a [f64]) -> impl Iterator<Item = (f64, f64, f64)> + 'a {
        series.iter().enumerate().filter_map(|(at, value)| {
            let (weights, variance) = self.orders.get(at).or(self.orders.last())?;
            let predicted: f64 = series.get(..at)?.iter().rev().zip(weights).map(|(past, weight)| past * weight).sum();
            Some((value - predicted, 1.0 - weights.iter().sum::<f64>(), *variance))
        })
    }

    /// The most likely mean: generalised least squares.
    fn mean(&self, series: &[f64]) -> Option<f64> {
        let (above, below) = self.errors(series).fold((0.0, 0.0), |(above, below), (value, share, variance)| {
            (above + value * share / variance, below + share * share / variance)
        });
        Some(above / below).filter(|mean| mean.is_finite())
    }

    /// Twice the negative logarithm of the likelihood, but for a constant.
    fn deviance(&self, series: &[f64]) -> Option<f64> {
        let mean = self.mean(series)?;
        let count = series.len() as f64;
        let (squares, logarithms) = self.errors(series).fold((0.0, 0.0), |sum, (value, share, variance)| {
            let error = value - mean * share;
            (sum.0 + error * error / variance, sum.1 + variance.ln())
        });
        Some(count * (squares / count).ln() + logarithms)
    }

    fn next(&self, series: &[f64]) -> Option<f64> {
        let mean = self.mean(series)?;
        let (weights, _) = self.orders.last()?;
        let past: Vec<f64> = series.iter().rev().take(weights.len()).map(|value| value - mean).collect();
        Some(mean + dot(weights, &past))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_order_one_has_the_textbook_likelihood() {
        // x0 ~ N(0, s²/(1 - a²)), x1 - a x0 ~ N(0, s²); the mean by generalised least squares.
        let (a, x0, x1): (f64, f64, f64) = (0.6, 1.0, 3.0);
        let predictor = Predictor::new(vec![a]).unwrap();
        let precision = 1.0 - a * a;
        let mean = (precision * x0 + (1.0 - a) * (x1 - a * x0)) / (precision + (1.0 - a) * (1.0 - a));
        assert!((predictor.mean(&[x0, x1]).unwrap() - mean).abs() < 1e-12);
        let squares = precision * (x0 - mean).powi(2) + (x1 - mean - a * (x0 - mean)).powi(2);
        let deviance = 2.0 * (squares / 2.0).ln() - precision.ln();
        assert!((predictor.deviance(&[x0, x1]).unwrap() - deviance).abs() < 1e-12);
    }

    #[test]
    fn processes_that_are_not_stationary_are_refused() {
        assert!(Predictor::new(vec![1.0]).is_none());
        assert!(Predictor::new(vec![0.5, 0.6]).is_none());
        assert!(Predictor::new(vec![f64::NAN]).is_none());
        assert!(Predictor::new(second_order(1.0, 0.0).to_vec()).is_some());
    }

    #[test]
    fn factors_are_multiplied_out() {
        assert_eq!(product([0.5, 0.25], 0.5, 4), [0.5, 0.25, 0.0, 0.5, -0.25, -0.125]);
        assert_eq!(product([0.5, 0.25], 0.5, 2), [0.5, 0.75, -0.25, -0.125]);
    }
}
