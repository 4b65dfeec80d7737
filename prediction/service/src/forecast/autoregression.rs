//! `autoReg`: a constant and ten lags by conditional least squares (Box, Jenkins, "Time Series Analysis", section 7.2), as
//! statsmodels' `AutoReg(gaps, lags=10)`.

use super::least_squares::{dot, least_squares};

/// Gaps that a gap is explained by. The original's figure.
pub(super) const LAGS: usize = 10;

/// The next value, or `None` with fewer equations than weights: below 21 values.
pub(super) fn forecast(series: &[f64]) -> Option<f64> {
    let equations = series.len().checked_sub(LAGS)?;
    if equations < LAGS + 1 {
        return None;
    }
    let ones = vec![1.0; equations];
    let lagged = (1..=LAGS).map(|lag| series.get(LAGS - lag..series.len() - lag));
    let columns: Vec<&[f64]> = std::iter::once(Some(ones.as_slice())).chain(lagged).collect::<Option<_>>()?;
    let weights = least_squares(&columns, series.get(LAGS..)?)?;
    let latest: Vec<f64> = std::iter::once(1.0).chain(series.iter().rev().take(LAGS).copied()).collect();
    Some(dot(&weights, &latest))
}
