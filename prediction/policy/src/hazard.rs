//! The hazard rule: the cheapest residency for gaps as the histogram has them.
//!
//! A guest is worth its memory while hazard(age) × cost of a miss > rent, where the hazard is the chance per second that
//! the event comes now, given that it has not come yet. Since each reload costs as well, the best ages to drop and to
//! make ready depend on each other; they are found by a dynamic programme over the cells, from the last to the first:
//!
//! ```text
//! resident(i) = min(stay, drop)     stay = rent × width(i) × (p(i) / 2 + later(i)) + resident(i + 1)
//! absent(i)   = min(drop, load)     drop = p(i) × miss + absent(i + 1)
//!                                   load = (p(i) + later(i)) × prepare + stay, with one reload less
//! ```
//!
//! p(i) is the weight of the cell and later(i) that of all later ones, so values are expected costs times the weight of
//! the gaps that last that long. An event is taken to come in the middle of its cell.

use crate::histogram::{CELLS, CLOSED, ENDS, Histogram};
use crate::plan::{MAX_INTERVALS, Plan};
use crate::price::Terms;
use crate::rule::Rule;

/// Expected costs from an age on, times the weight of the gaps that last that long, by reloads left.
#[derive(Debug, Clone, Copy)]
struct Values {
    resident: [f64; MAX_INTERVALS],
    absent: [f64; MAX_INTERVALS],
}

/// What is best in a cell, one bit for each number of reloads left.
#[derive(Debug, Clone, Copy, Default)]
struct Choice {
    stay: u8,
    load: u8,
}

const _: () = assert!(MAX_INTERVALS <= 8, "a choice has eight bits");

/// The cheapest plan with edges at the ends of cells.
pub(crate) fn plan(histogram: &Histogram, terms: &Terms) -> Plan {
    let mut choices = [Choice::default(); CLOSED];
    let mut last = end(histogram, terms);
    for (cell, choice) in cells(histogram).zip(choices.iter_mut().rev()) {
        *choice = last.step(&cell, terms);
    }

    let mut plan = Plan::immediately(Rule::Hazard);
    let mut since = Some(0.0);
    let mut left = MAX_INTERVALS - 1;
    let mut from = 0.0;
    for (choice, until) in choices.iter().zip(ENDS) {
        let bit = 1 << left;
        match since {
            Some(start) if choice.stay & bit == 0 => {
                plan = add(plan, terms, start, from);
                since = None;
            }
            None if choice.load & bit != 0 => {
                since = Some(from);
                left -= 1;
            }
            _ => {}
        }
        from = until;
    }
    since.map_or(plan, |start| add(plan, terms, start, from))
}

fn add(plan: Plan, terms: &Terms, from: f64, until: f64) -> Plan {
    if from > 0.0 {
        plan.ready_between(terms, from, until)
    } else {
        plan.with(std::time::Duration::ZERO, crate::units::duration(until))
    }
}

/// What residency is expected to save from the start of that cell on, in seconds of delay, compared with a guest that is
/// dropped there and not made ready again before its event.
pub(crate) fn saving(histogram: &Histogram, terms: &Terms, cell: usize) -> f64 {
    let mut last = end(histogram, terms);
    for step in cells(histogram).take(CLOSED.saturating_sub(cell)) {
        last.step(&step, terms);
    }
    let lasting: f64 = histogram.weights().skip(cell.min(CELLS - 1)).sum();
    match (last.absent.first(), last.resident.last()) {
        (Some(absent), Some(resident)) if lasting > 0.0 => ((absent - resident) / lasting).max(0.0),
        _ => 0.0,
    }
}

struct Cell {
    weight: f64,
    later: f64,
    width: f64,
}

/// The closed cells, the last first.
fn cells(histogram: &Histogram) -> impl Iterator<Item = Cell> + '_ {
    let mut weights = histogram.weights().rev();
    let mut later = weights.next().unwrap_or_default();
    let starts = ENDS.iter().rev().skip(1).chain([&0.0]);
    weights.zip(ENDS.iter().rev().zip(starts)).map(move |(weight, (end, start))| {
        let cell = Cell { weight, later, width: end - start };
        later += weight;
        cell
    })
}

/// Beyond the last closed cell every guest is dropped.
fn end(histogram: &Histogram, terms: &Terms) -> Values {
    let miss = histogram.weights().next_back().unwrap_or_default() * terms.miss();
    Values { resident: [miss; MAX_INTERVALS], absent: [miss; MAX_INTERVALS] }
}

impl Values {
    /// Goes one cell back.
    fn step(&mut self, cell: &Cell, terms: &Terms) -> Choice {
        let rent = terms.rent * cell.width * (cell.weight / 2.0 + cell.later);
        let miss = cell.weight * terms.miss();
        let prepare = (cell.weight + cell.later) * terms.prepare();
        let stay = self.resident.map(|resident| rent + resident);
        let drop = self.absent.map(|absent| miss + absent);
        // With one reload less.
        let mut load = [f64::INFINITY; MAX_INTERVALS];
        load.iter_mut().skip(1).zip(stay).for_each(|(load, stay)| *load = prepare + stay);
        let mut choice = Choice::default();
        for (left, ((stay, load), drop)) in stay.into_iter().zip(load).zip(drop).enumerate() {
            choice.stay |= u8::from(stay < drop) << left;
            choice.load |= u8::from(load < drop) << left;
        }
        self.resident.iter_mut().zip(stay.into_iter().zip(drop)).for_each(|(value, pair)| *value = less(pair));
        self.absent.iter_mut().zip(load.into_iter().zip(drop)).for_each(|(value, pair)| *value = less(pair));
        choice
    }
}

/// The lesser. Neither is NaN, so this innermost step needs none of the care that `f64::min` takes for that.
fn less((a, b): (f64, f64)) -> f64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::histogram;
    use crate::price::{Costs, Price};
    use std::time::Duration;

    fn terms(milliseconds: u64, mebibytes: u64) -> Terms {
        Price::default().terms(&Costs::new(Duration::from_millis(milliseconds), Duration::ZERO, mebibytes << 20))
    }

    fn learnt(gaps: impl IntoIterator<Item = f64>) -> Histogram {
        let mut histogram = Histogram::new();
        gaps.into_iter().for_each(|gap| histogram.learn(gap));
        histogram
    }

    /// What residency in those cells is expected to cost, times the weight of all gaps.
    fn expected(histogram: &Histogram, terms: &Terms, resident: &[bool; CLOSED]) -> f64 {
        let weights: Vec<f64> = histogram.weights().collect();
        let mut cost = weights[CLOSED] * terms.miss();
        let mut before = true;
        for cell in 0..CLOSED {
            let later: f64 = weights[cell + 1..].iter().sum();
            let width = ENDS[cell] - if cell == 0 { 0.0 } else { ENDS[cell - 1] };
            if resident[cell] {
                cost += terms.rent * width * (weights[cell] / 2.0 + later);
                cost += if before { 0.0 } else { (weights[cell] + later) * terms.prepare() };
            } else {
                cost += weights[cell] * terms.miss();
            }
            before = resident[cell];
        }
        cost
    }

    /// The cells in which the plan has the guest ready.
    fn cells(plan: &Plan, terms: &Terms) -> [bool; CLOSED] {
        std::array::from_fn(|cell| {
            let start = if cell == 0 { 0.0 } else { ENDS[cell - 1] };
            let middle = (start + ENDS[cell]) / 2.0;
            let ready = |i: &crate::Interval| {
                let lead = if i.from > Duration::ZERO { terms.lead } else { 0.0 };
                (i.from.as_secs_f64() + lead..i.until.as_secs_f64()).contains(&middle)
            };
            plan.intervals().iter().any(ready)
        })
    }

    #[test]
    fn short_gaps_keep_the_guest_just_long_enough() {
        // Break-even after 10 s; all gaps are 2 s.
        let terms = terms(100, 200);
        let plan = plan(&learnt([2.0; 30]), &terms);
        let [interval] = plan.intervals() else { panic!("{plan:?}") };
        let until = interval.until.as_secs_f64();
        assert_eq!(interval.from, Duration::ZERO);
        assert!(plan.is_resident(Duration::from_millis(2010)) && until < 10.0, "{plan:?}");
    }

    #[test]
    fn long_regular_gaps_drop_the_guest_and_make_it_ready_again() {
        let terms = terms(100, 200);
        let plan = plan(&learnt([60.0; 30]), &terms);
        let [interval] = plan.intervals() else { panic!("{plan:?}") };
        let cell = histogram::cell(60.0);
        assert!(
            (interval.from.as_secs_f64() - (ENDS[cell - 1] - 0.1)).abs() < 1e-6,
            "a reload's time earlier: {plan:?}"
        );
        assert!(interval.until.as_secs_f64() >= ENDS[cell] - 1e-6, "{plan:?}");
    }

    #[test]
    fn two_kinds_of_gaps_give_two_intervals() {
        let terms = terms(100, 200);
        let plan = plan(&learnt((0..40).map(|i| if i % 2 == 0 { 1.0 } else { 30.0 })), &terms);
        assert_eq!(plan.intervals().len(), 2, "{plan:?}");
        assert!(!plan.is_resident(Duration::from_secs(10)));
    }

    #[test]
    fn a_wake_that_costs_nothing_keeps_no_guest_and_free_memory_keeps_each() {
        let gaps = learnt([2.0; 30]);
        assert_eq!(plan(&gaps, &terms(0, 200)).intervals(), []);
        let free = plan(&gaps, &terms(100, 0));
        assert_eq!(free.intervals().len(), 1);
        assert!(free.is_resident(Duration::from_secs(7199)));
    }

    #[test]
    fn the_saving_is_the_difference_that_residency_makes() {
        // In the cell of the gap: a miss less the rent for half of the cell, nearly.
        let terms = terms(100, 200);
        let gaps = learnt([60.0; 400]);
        let cell = histogram::cell(60.0);
        let width = ENDS[cell] - ENDS[cell - 1];
        let saving = saving(&gaps, &terms, cell);
        let least = (terms.miss() - terms.rent * width / 2.0) * 0.95;
        assert!(saving > least && saving < terms.miss(), "{saving} {least}");
        // Beyond all that is known it is worth little, beyond the range nothing.
        assert!(super::saving(&gaps, &terms, histogram::cell(3000.0)) < saving / 2.0);
        assert_eq!(super::saving(&gaps, &terms, CELLS - 1), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_single_threshold_costs_less_than_the_plan(
            gaps in prop::collection::vec(-3.0f64..9.5, 0..120), milliseconds in 0u64..2000, mebibytes in 0u64..500,
        ) {
            let histogram = learnt(gaps.into_iter().map(f64::exp));
            let terms = terms(milliseconds, mebibytes);
            let resident = cells(&plan(&histogram, &terms), &terms);
            let cost = expected(&histogram, &terms, &resident);
            for threshold in 0..=CLOSED {
                let other = expected(&histogram, &terms, &std::array::from_fn(|cell| cell < threshold));
                prop_assert!(cost <= other * (1.0 + 1e-9) + 1e-9, "{} {} {}", cost, threshold, other);
            }
        }

        /// No window of the same number of intervals either: the first interval and one more, at any cells.
        #[test]
        fn no_two_intervals_cost_less_than_the_plan(
            gaps in prop::collection::vec(-3.0f64..9.5, 0..60), first in 0..CLOSED, pause in 0..CLOSED, window in 0..CLOSED,
        ) {
            let histogram = learnt(gaps.into_iter().map(f64::exp));
            let terms = terms(100, 200);
            let cost = expected(&histogram, &terms, &cells(&plan(&histogram, &terms), &terms));
            let other = expected(&histogram, &terms, &std::array::from_fn(|cell| {
                cell < first || (first + pause..first + pause + window).contains(&cell)
            }));
            prop_assert!(cost <= other * (1.0 + 1e-9) + 1e-9);
        }
    }
}
