//! The season that a series shows by itself, in values: the original names none.

/// The longest season looked for. Its memory and time grow with it; gaps between events that repeat do so after a few.
pub(super) const MAX_SEASON: usize = 12;
/// Seasons that a series must hold before one is believed.
const MIN_SEASONS: usize = 3;
/// Autocorrelation at the season's lag. At half, the season explains about half of what varies.
const MIN_CORRELATION: f64 = 0.5;
/// How far that rises above the lowest of the shorter lags. Without it, chance makes seasons of series that wander.
const MIN_RISE: f64 = 0.2;

/// The lag from 2 to [`MAX_SEASON`] with the highest autocorrelation, if that is at least one half and a clear peak (a trend
/// raises all lags, the short ones most).
pub(super) fn season(series: &[f64]) -> Option<usize> {
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    let deviations: Vec<f64> = series.iter().map(|value| value - mean).collect();
    let correlation = |lag: usize| {
        let later = deviations.get(lag..).unwrap_or_default();
        super::least_squares::dot(&deviations, later) / super::least_squares::dot(&deviations, &deviations)
    };
    let longest = MAX_SEASON.min(series.len() / MIN_SEASONS);
    (2..=longest)
        .map(|lag| (lag, correlation(lag)))
        .filter(|&(lag, here)| here >= MIN_CORRELATION && here > correlation(lag - 1) && here > correlation(lag + 1))
        .filter(|&(lag, here)| (1..lag).any(|shorter| here - correlation(shorter) >= MIN_RISE))
        .reduce(|best, other| if other.1 > best.1 { other } else { best })
        .map(|(lag, _)| lag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_has_a_season() {
        let alternating: Vec<f64> = (0..20).map(|at| [5.0, 60.0][at % 2]).collect();
        assert_eq!(season(&alternating), Some(2));
        let three: Vec<f64> = (0..30).map(|at| [1.0, 1.5, 9.0][at % 3] + 0.01 * (at * 7 % 5) as f64).collect();
        assert_eq!(season(&three), Some(3));
    }

    #[test]
    fn a_trend_a_constant_and_disorder_have_none() {
        let line: Vec<f64> = (0..40).map(f64::from).collect();
        assert_eq!(season(&line), None);
        assert_eq!(season(&[5.0; 40]), None);
        let mut state = 1_u32;
        let disorder: Vec<f64> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8)
        })
        .take(200)
        .collect();
        assert_eq!(season(&disorder), None);
    }

    #[test]
    fn two_repeats_are_not_believed() {
        assert_eq!(season(&[1.0, 2.0, 9.0, 1.0, 2.0, 9.0]), None);
        assert_eq!(season(&[]), None);
    }
}
