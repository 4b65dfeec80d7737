//! The smallest value of a function of one to three parameters, each between 0 and 1.
//!
//! A grid finds the valley, Nelder and Mead's simplex its bottom ("A simplex method for function minimization", The Computer
//! Journal 7, 1965). Smoothing parameters have several valleys and no derivatives that are worth writing down. The search runs over
//! angles, whose cosines give the parameters: so there is no edge against which a simplex would be pressed flat, and the grid is
//! finest where the parameters end.

use std::f64::consts::PI;

/// Points of the grid along each parameter, by the number of parameters: some hundred in all.
const GRID: [usize; 3] = [64, 12, 5];
/// A simplex that arrived is opened anew where it is, in case it had become flat.
const ROUNDS: usize = 2;
/// Steps of a simplex.
const MAX_STEPS: usize = 200;
/// A simplex whose values differ by less, relative to the smallest, has arrived.
const TOLERANCE: f64 = 1e-11;
/// And whose corners are this close, so that a flat start is not taken for the end.
const SIZE: f64 = 1e-6;

type Point<const N: usize> = [f64; N];
type Corner<const N: usize> = (f64, Point<N>);

/// Where `value` is smallest. Values that are not numbers count as large.
pub(super) fn minimize<const N: usize>(value: impl Fn(Point<N>) -> f64) -> Point<N> {
    let parameters = |angles: Point<N>| angles.map(|angle| 0.5 - 0.5 * (PI * angle).cos());
    let valued = |angles: Point<N>| {
        let value = value(parameters(angles));
        (if value.is_nan() { f64::INFINITY } else { value }, angles)
    };
    let points = GRID.get(N.saturating_sub(1)).copied().unwrap_or(3);
    let mut best = valued([0.5; N]);
    for corner in (0..points.pow(N as u32)).map(|number| valued(middle(number, points))) {
        best = if corner.0 < best.0 { corner } else { best };
    }
    for _ in 0..ROUNDS {
        best = simplex(best, 0.5 / points as f64, valued);
    }
    parameters(best.1)
}

/// The middle of the cell with this number.
fn middle<const N: usize>(mut number: usize, points: usize) -> Point<N> {
    std::array::from_fn(|_| {
        let place = number % points;
        number /= points;
        (place as f64 + 0.5) / points as f64
    })
}

fn simplex<const N: usize>(start: Corner<N>, edge: f64, valued: impl Fn(Point<N>) -> Corner<N>) -> Corner<N> {
    let mut corners = vec![start];
    for axis in 0..N {
        let mut number = 0;
        corners.push(valued(start.1.map(|at| {
            number += 1;
            if number == axis + 1 { at + edge } else { at }
        })));
    }
    for _ in 0..MAX_STEPS {
        corners.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (Some(&best), Some(&worst)) = (corners.first(), corners.last()) else { break };
        if worst.0 - best.0 <= TOLERANCE * best.0.abs() && distance(best.1, worst.1) <= SIZE || worst.0 == best.0 {
            break;
        }
        let second_worst = corners.iter().rev().nth(1).map_or(best.0, |corner| corner.0);
        let mut center = [0.0; N];
        for corner in corners.iter().take(N) {
            center = together(center, corner.1, |sum, at| sum + at / N as f64);
        }
        let beyond =
            |factor: f64| valued(together(center, worst.1, |center, worst| center + factor * (center - worst)));
        let reflected = beyond(1.0);
        let better = if reflected.0 < best.0 {
            let expanded = beyond(2.0);
            Some(if expanded.0 < reflected.0 { expanded } else { reflected })
        } else if reflected.0 < second_worst {
            Some(reflected)
        } else {
            let contracted = beyond(if reflected.0 < worst.0 { 0.5 } else { -0.5 });
            (contracted.0 < worst.0.min(reflected.0)).then_some(contracted)
        };
        match better {
            Some(corner) => {
                corners.pop();
                corners.push(corner);
            }
            None => {
                for corner in corners.iter_mut().skip(1) {
                    *corner = valued(together(best.1, corner.1, |best, at| best + 0.5 * (at - best)));
                }
            }
        }
    }
    corners.iter().min_by(|one, other| one.0.total_cmp(&other.0)).copied().unwrap_or(start)
}

fn together<const N: usize>(one: Point<N>, other: Point<N>, with: impl Fn(f64, f64) -> f64) -> Point<N> {
    let mut other = other.into_iter();
    one.map(|one| other.next().map_or(one, |other| with(one, other)))
}

fn distance<const N: usize>(one: Point<N>, other: Point<N>) -> f64 {
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near<const N: usize>(found: Point<N>, expected: Point<N>) {
        assert!(distance(found, expected) < 1e-5, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn the_bottom_of_a_bowl_is_found() {
        is_near(minimize(|[x]: [f64; 1]| (x - 0.3).powi(2)), [0.3]);
        is_near(minimize(|[x, y]: [f64; 2]| (x - 0.3).powi(2) + 9.0 * (y - x).powi(2)), [0.3, 0.3]);
        is_near(
            minimize(|[x, y, z]: [f64; 3]| (x - 0.9).powi(2) + (y - 0.1).powi(2) + (z - 0.5).powi(2)),
            [0.9, 0.1, 0.5],
        );
    }

    #[test]
    fn a_bottom_outside_is_met_at_the_edge() {
        is_near(minimize(|[x, y]: [f64; 2]| (x + 1.0).powi(2) + (y - 2.0).powi(2)), [0.0, 1.0]);
    }

    #[test]
    fn a_bottom_close_to_the_edge_is_met() {
        // The shape of a likelihood close to a process that is not stationary.
        is_near(minimize(|[x, y]: [f64; 2]| -(1.0 - x).ln() + 1e3 * (1.0 - x) + (y - 0.5).powi(2)), [0.999, 0.5]);
    }

    #[test]
    fn the_deeper_of_two_valleys_is_taken() {
        let valleys = |[x]: [f64; 1]| (20.0 * (x - 0.2).powi(2)).min(20.0 * (x - 0.8).powi(2) - 0.1);
        is_near(minimize(valleys), [0.8]);
    }

    #[test]
    fn it_ends_on_values_that_are_no_numbers() {
        let [x] = minimize(|_: [f64; 1]| f64::NAN);
        assert!((0.0..=1.0).contains(&x));
        is_near(minimize(|[x]: [f64; 1]| if x < 0.3 { f64::NAN } else { x }), [0.3]);
    }
}
