//! Linear least squares with few columns.

use std::collections::VecDeque;

/// Added to the diagonal, relative to its mean: columns that depend on each other (a strictly periodic history) then share
/// their weight, as they do under the pseudo-inverse. Small against every figure that a history of events can bear.
const RIDGE: f64 = 1e-12;

/// The weights of `columns` whose sum is closest to `target`, by the normal equations. `None` when no such weights are finite.
pub(super) fn least_squares<C: AsRef<[f64]>>(columns: &[C], target: &[f64]) -> Option<Vec<f64>> {
    let squares: f64 = columns.iter().map(|column| dot(column.as_ref(), column.as_ref())).sum();
    let ridge = RIDGE * squares / columns.len().max(1) as f64;
    let rows = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let column = column.as_ref();
            let own = dot(column, column) + ridge;
            let others = columns.iter().skip(at + 1).map(|other| dot(column, other.as_ref()));
            std::iter::once(own).chain(others).chain([dot(column, target)]).collect()
        })
        .collect();
    solve(rows)
}

/// Gaussian elimination of a symmetric, positive definite system, which needs no exchange of rows. Each row begins at the
/// diagonal and ends with its right side.
fn solve(mut left: VecDeque<Vec<f64>>) -> Option<Vec<f64>> {
    let mut reduced: Vec<Vec<f64>> = Vec::with_capacity(left.len());
    while let Some(row) = left.pop_front() {
        let pivot = *row.first()?;
        for (other, at) in left.iter_mut().zip(1..) {
            let rest = row.get(at..)?;
            let factor = rest.first()? / pivot;
            for (mine, theirs) in other.iter_mut().zip(rest) {
                *mine -= factor * theirs;
            }
        }
        reduced.push(row);
    }
    let mut weights = Vec::with_capacity(reduced.len()); // the last one first
    for row in reduced.iter().rev() {
        let (right, row) = row.split_last()?;
        let (pivot, known) = row.split_first()?;
        let sum: f64 = known.iter().zip(weights.iter().rev()).map(|(factor, weight): (_, &f64)| factor * weight).sum();
        weights.push((right - sum) / pivot);
    }
    weights.reverse();
    weights.iter().all(|weight| weight.is_finite()).then_some(weights)
}

/// The sum of products, as far as both go. In four lanes, which the processor adds at once.
pub(super) fn dot(one: &[f64], other: &[f64]) -> f64 {
    let length = one.len().min(other.len());
    let (one, other) = (one.get(..length).unwrap_or(one), other.get(..length).unwrap_or(other));
    let ((one, one_rest), (other, other_rest)) = (one.as_chunks::<4>(), other.as_chunks::<4>());
    let mut lanes = [0.0; 4];
    for (one, other) in one.iter().zip(other) {
        for ((lane, one), other) in lanes.iter_mut().zip(one).zip(other) {
            *lane += one * other;
        }
    }
    let rest: f64 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found() {
        let ones = vec![1.0; 5];
        let steps = vec![0.0, 1.0, 2.0, 3.0, 4.0];
        let weights = least_squares(&[ones, steps], &[3.0, 5.0, 7.0, 9.0, 11.0]).unwrap();
        assert!((weights[0] - 3.0).abs() < 1e-9 && (weights[1] - 2.0).abs() < 1e-9, "{weights:?}");
    }

    #[test]
    fn what_no_line_meets_is_met_with_the_least_squares() {
        // By hand: the mean of 1, 2, 6.
        let weights = least_squares(&[[1.0; 3]], &[1.0, 2.0, 6.0]).unwrap();
        assert!((weights[0] - 3.0).abs() < 1e-9, "{weights:?}");
    }

    #[test]
    fn equal_columns_share_their_weight() {
        let column = vec![1.0, 2.0, 3.0];
        let weights = least_squares(&[column.clone(), column], &[2.0, 4.0, 6.0]).unwrap();
        assert!((weights[0] - 1.0).abs() < 1e-3 && (weights[1] - 1.0).abs() < 1e-3, "{weights:?}");
    }

    #[test]
    fn a_system_of_three_is_solved() {
        // 4x + 2y + 0.6z = 9.8, 2x + 5y + z = 15, 0.6x + y + 3z = 11.6, whose answer is 1, 2, 3.
        let rows = VecDeque::from([vec![4.0, 2.0, 0.6, 9.8], vec![5.0, 1.0, 15.0], vec![3.0, 11.6]]);
        let weights = solve(rows).unwrap();
        assert!(weights.iter().zip([1.0, 2.0, 3.0]).all(|(found, real)| (found - real).abs() < 1e-12), "{weights:?}");
    }

    #[test]
    fn products_are_summed_as_far_as_both_go() {
        let one: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(dot(&one, &[1.0; 10]), 55.0);
        assert_eq!(dot(&one, &[1.0; 6]), 21.0);
        assert_eq!(dot(&[2.0; 3], &one), 12.0);
    }

    #[test]
    fn columns_without_content_have_no_answer() {
        assert_eq!(least_squares(&[[0.0; 3]], &[1.0, 2.0, 3.0]), None);
        assert_eq!(least_squares(&[[f64::NAN; 3]], &[1.0, 2.0, 3.0]), None);
    }
}
