//! Forecasts of the next gap between events from the gaps so far: pure functions of a list of seconds.

mod arima;
mod autoregression;
mod least_squares;
mod median;
mod minimize;
mod season;
mod smoothing;

use std::str::FromStr;

/// No model extrapolates further than this many times the longest gap that it has seen.
const MAX_EXTRAPOLATION: f64 = 10.0;
/// Gaps that differ by less than this share of their mean are all the same: there is nothing to fit.
const CONSTANT: f64 = 1e-9;

/// How the next gap is forecast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Function {
    /// `autoReg`: ten lags by least squares.
    #[default]
    AutoRegression,
    /// `ARIMA` of order (2, 0, 0) with a mean.
    Arima,
    /// `SARIMA` of order (2, 0, 0) × (1, 0, 0), or `ARIMA` where the gaps show no season.
    Sarima,
    /// `SES`: simple exponential smoothing.
    Simple,
    /// `Holt`: exponential smoothing with an additive trend.
    Holt,
    /// `Winter`: exponential smoothing with an additive trend and season, or `SES` where the gaps show no season.
    Winter,
    /// `histogram`: the median of the gaps, the latest weighing most. Not in the original.
    Median,
}

impl Function {
    /// Every function.
    pub const ALL: [Self; 7] =
        [Self::AutoRegression, Self::Arima, Self::Sarima, Self::Simple, Self::Holt, Self::Winter, Self::Median];

    /// Its name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AutoRegression => "autoReg",
            Self::Arima => "ARIMA",
            Self::Sarima => "SARIMA",
            Self::Simple => "SES",
            Self::Holt => "Holt",
            Self::Winter => "Winter",
            Self::Median => "histogram",
        }
    }

    /// `None` when there is nothing to fit the model to.
    fn fit(self, series: &[f64]) -> Option<f64> {
        match self {
            Self::AutoRegression => autoregression::forecast(series),
            Self::Arima => arima::forecast(series),
            Self::Sarima => match season::season(series) {
                Some(season) => arima::seasonal_forecast(series, season),
                None => arima::forecast(series),
            },
            Self::Simple => smoothing::simple(series),
            Self::Holt => smoothing::with_trend(series),
            Self::Winter => match season::season(series) {
                Some(season) => smoothing::with_season(series, season),
                None => smoothing::simple(series),
            },
            Self::Median => median::forecast(series),
        }
    }
}

/// There is no function of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("function does not exist")]
pub struct UnknownFunction;

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(name: &str) -> Result<Self, UnknownFunction> {
        // Versions of the original differ in how they write their first one.
        let name = if name == "AutoReg" { "autoReg" } else { name };
        Self::ALL.into_iter().find(|function| function.name() == name).ok_or(UnknownFunction)
    }
}

/// The gap after `gaps`, all in seconds. `None` without a gap.
///
/// A model that cannot be fitted gives way to the mean of the gaps, as in the original. A forecast of zero or less becomes the
/// shortest gap so far, one of more than ten times the longest becomes that: it is never negative and always finite.
#[must_use]
pub fn next_gap(function: Function, gaps: &[f64]) -> Option<f64> {
    let shortest = gaps.iter().copied().reduce(f64::min)?;
    let longest = gaps.iter().copied().reduce(f64::max)?;
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let scale = longest - shortest;
    if scale.is_nan() || scale <= CONSTANT * mean {
        return Some(mean);
    }
    // The models do not care for unit and origin, their arithmetic does.
    let series: Vec<f64> = gaps.iter().map(|gap| (gap - mean) / scale).collect();
    let forecast = function.fit(&series).map(|forecast| mean + forecast * scale).filter(|gap| gap.is_finite());
    Some(match forecast {
        None => mean,
        Some(gap) if gap <= 0.0 => shortest,
        Some(gap) => gap.min(MAX_EXTRAPOLATION * longest),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_originals() {
        for function in Function::ALL {
            assert_eq!(function.name().parse(), Ok(function));
        }
        assert_eq!("AutoReg".parse(), Ok(Function::AutoRegression));
        for unknown in ["", "autoreg", "SES ", "Prophet"] {
            assert_eq!(unknown.parse::<Function>(), Err(UnknownFunction));
        }
    }

    #[test]
    fn one_gap_is_repeated() {
        for function in Function::ALL {
            assert_eq!(next_gap(function, &[]), None);
            assert_eq!(next_gap(function, &[7.5]), Some(7.5));
            assert_eq!(next_gap(function, &[5.0; 40]), Some(5.0));
            assert_eq!(next_gap(function, &[0.0; 40]), Some(0.0));
        }
    }

    #[test]
    fn too_short_a_history_is_answered_with_its_mean() {
        for function in Function::ALL.into_iter().filter(|function| *function != Function::Median) {
            assert_eq!(next_gap(function, &[4.0, 8.0]), Some(6.0), "{function:?}");
        }
        let twenty: Vec<f64> = (0..20).map(|at| f64::from(at % 7)).collect();
        let mean = twenty.iter().sum::<f64>() / 20.0;
        assert_eq!(next_gap(Function::AutoRegression, &twenty), Some(mean));
    }

    #[test]
    fn a_forecast_below_zero_is_the_shortest_gap() {
        assert_eq!(next_gap(Function::Holt, &[60.0, 50.0, 40.0, 30.0, 20.0, 10.0, 1.0]), Some(1.0));
    }

    #[test]
    fn a_forecast_out_of_proportion_is_cut() {
        let explosive: Vec<f64> = (0..30).map(|at| 20_f64.powi(at)).collect();
        assert_eq!(next_gap(Function::AutoRegression, &explosive), Some(10.0 * 20_f64.powi(29)));
    }

    #[test]
    fn what_alternates_is_learnt_by_those_that_can() {
        let gaps: Vec<f64> = (0..40).map(|at| [5.0, 60.0][at % 2]).collect();
        for function in [Function::AutoRegression, Function::Arima, Function::Sarima, Function::Winter] {
            let gap = next_gap(function, &gaps).unwrap();
            assert!((gap - 5.0).abs() < 0.5, "{function:?} says {gap}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_forecast_is_a_gap(
            gaps in prop::collection::vec(
                prop_oneof![Just(0.0), Just(5.0), 1e-9..1e-3, 0.1..100.0, 1e3..1e10],
                1..70,
            ),
        ) {
            let longest = gaps.iter().copied().fold(0.0, f64::max);
            for function in Function::ALL {
                let gap = next_gap(function, &gaps).unwrap();
                prop_assert!(gap.is_finite() && (0.0..=10.0 * longest).contains(&gap), "{:?} says {}", function, gap);
            }
        }
    }
}
