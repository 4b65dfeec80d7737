//! An autoregressive model of the logarithms of the gaps: each is a weighted sum of those before it.

use crate::history::{History, REMEMBERED};

/// How many gaps before it a gap is taken to depend on: alternations and short patterns.
const ORDER: usize = 4;

/// Gaps without which no model is fitted.
const LEAST: usize = 3 * ORDER;

/// Shorter gaps, in seconds, are taken for this long, so that they have a logarithm.
const SHORTEST: f64 = 0.001;

/// The next gap in seconds, by a model fitted to the history with Burg's method (1975), which suits short series. Logarithms,
/// so that one long gap does not decide the fit. None while there are too few gaps. Never beyond the gaps seen.
pub(crate) fn forecast(history: &History) -> Option<f64> {
    let len = history.len();
    if len < LEAST {
        return None;
    }
    let mut series = [0.0; REMEMBERED];
    series.iter_mut().zip(history.iter()).for_each(|(slot, gap)| *slot = gap.max(SHORTEST).ln());
    let series = series.get(..len)?;
    let mean = series.iter().sum::<f64>() / len as f64;
    let weights = fit(series, mean);
    let next = mean + series.iter().rev().zip(weights).map(|(value, weight)| weight * (value - mean)).sum::<f64>();
    let (least, most) = series.iter().fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
    Some(next.clamp(least, most).exp())
}

/// The weights of the values before, the latest first.
fn fit(series: &[f64], mean: f64) -> [f64; ORDER] {
    let mut forward = [0.0; REMEMBERED];
    forward.iter_mut().zip(series).for_each(|(slot, value)| *slot = value - mean);
    let mut backward = forward;
    let mut forward = forward.get_mut(..series.len()).unwrap_or_default();
    let mut backward = backward.get_mut(..series.len()).unwrap_or_default();
    let mut weights = [0.0; ORDER];
    for stage in 0..ORDER {
        forward = forward.split_first_mut().map(|(_, rest)| rest).unwrap_or_default();
        backward = backward.split_last_mut().map(|(_, rest)| rest).unwrap_or_default();
        let pairs = forward.iter().zip(backward.iter());
        let (product, power) =
            pairs.fold((0.0, 0.0), |(product, power), (f, b)| (product + f * b, power + f * f + b * b));
        if power < 1e-12 {
            break; // nothing is left to explain
        }
        let reflection = 2.0 * product / power;
        for (f, b) in forward.iter_mut().zip(backward.iter_mut()) {
            (*f, *b) = (*f - reflection * *b, *b - reflection * *f);
        }
        let before = weights;
        for (weight, mirrored) in weights.iter_mut().zip(before.iter().take(stage).rev()) {
            *weight -= reflection * mirrored;
        }
        if let Some(weight) = weights.get_mut(stage) {
            *weight = reflection;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut history = History::new();
        gaps.into_iter().for_each(|gap| history.push(gap));
        forecast(&history)
    }

    #[test]
    fn too_few_gaps_give_no_forecast() {
        assert_eq!(after([5.0; 11]), None);
        assert!((after([5.0; 12]).unwrap() - 5.0).abs() < 1e-6);
    }

    #[test]
    fn an_alternation_is_continued() {
        let long_next = after((0..32).map(|i| if i % 2 == 0 { 40.0 } else { 5.0 })).unwrap();
        let short_next = after((0..31).map(|i| if i % 2 == 0 { 40.0 } else { 5.0 })).unwrap();
        assert!((35.0..=40.1).contains(&long_next), "{long_next}");
        assert!((4.9..6.0).contains(&short_next), "{short_next}");
    }

    #[test]
    fn a_pattern_of_three_is_continued() {
        let next = after((0..30).map(|i| [5.0, 10.0, 40.0][i % 3])).unwrap();
        assert!((5.0..5.5).contains(&next), "{next}");
    }

    #[test]
    fn the_weights_are_those_reckoned_by_hand() {
        // Forward 2, 4 and backward 1, 2 give the reflection 2 × 10 / 25 = 0.8; then 2.4 and -0.6 give -2.88 / 6.12.
        let second = -2.88 / 6.12;
        let weights = fit(&[1.0, 2.0, 4.0], 0.0);
        for (weight, expected) in weights.into_iter().zip([0.8 - second * 0.8, second, 0.0, 0.0]) {
            assert!((weight - expected).abs() < 1e-9, "{weights:?}");
        }
    }

    #[test]
    fn zero_and_huge_gaps_give_a_finite_forecast() {
        for gaps in [[0.0; 32], [2_592_000.0; 32]] {
            assert!(after(gaps).unwrap().is_finite());
        }
        assert!(after((0..32).map(|i| if i % 3 == 0 { 0.0 } else { 2_592_000.0 })).unwrap().is_finite());
    }
}
