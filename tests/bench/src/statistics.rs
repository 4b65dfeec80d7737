//! Figures over repeats.

use serde::Serialize;

/// A figure of several repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) least: f64,
    /// The largest.
    pub(crate) most: f64,
}

impl Spread {
    /// Of these values; None without any.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), least, most })
    }
}

/// Which repeats of one variant count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Their places, in order.
    pub(crate) kept: Vec<usize>,
    /// How many of these were disturbed: there were not enough quiet ones.
    pub(crate) disturbed: usize,
}

/// The repeats from quiet phases: where others used at most `limit` cores. If these are fewer than `wanted`, the least
/// disturbed others fill up. Nothing but what others used is looked at, and not the result.
pub(crate) fn select(others: &[f64], limit: f64, wanted: usize) -> Selection {
    let mut order: Vec<(usize, f64)> = others.iter().copied().enumerate().collect();
    order.sort_by(|one, other| one.1.total_cmp(&other.1));
    let quiet = order.iter().filter(|(_, others)| *others <= limit).count();
    let count = quiet.max(wanted).min(order.len());
    let mut kept: Vec<usize> = order.into_iter().take(count).map(|(place, _)| place).collect();
    kept.sort_unstable();
    Selection { disturbed: kept.len() - quiet, kept }
}

/// How many of these are from quiet phases.
pub(crate) fn quiet(others: &[f64], limit: f64) -> usize {
    others.iter().filter(|others| **others <= limit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([2.0]), Some(Spread { median: 2.0, least: 2.0, most: 2.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 9.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
    }

    #[test]
    fn only_repeats_from_quiet_phases_count() {
        let selection = select(&[0.5, 0.01, 0.2, 0.0, 0.1], 0.1, 3);
        assert_eq!(selection, Selection { kept: vec![1, 3, 4], disturbed: 0 });
    }

    #[test]
    fn all_quiet_repeats_count_even_beyond_what_was_wanted() {
        assert_eq!(select(&[0.0, 0.0, 0.0, 0.3], 0.1, 2).kept, [0, 1, 2]);
    }

    #[test]
    fn without_enough_quiet_ones_the_least_disturbed_fill_up_and_are_counted() {
        assert_eq!(select(&[0.9, 0.05, 0.3, 0.5], 0.1, 3), Selection { kept: vec![1, 2, 3], disturbed: 2 });
        assert_eq!(select(&[0.9], 0.1, 3), Selection { kept: vec![0], disturbed: 1 });
        assert_eq!(select(&[], 0.1, 3), Selection { kept: vec![], disturbed: 0 });
        assert_eq!(quiet(&[0.9, 0.05], 0.1), 1);
    }
}
