//! The hybrid histogram of Shahrad et al. 2020, "Serverless in the Wild" (USENIX ATC), section 4.2.
//!
//! Dropped at once, made ready at the 5th percentile of the gaps less 10 %, dropped at the 99th and 10 % more. Where most
//! gaps are beyond the histogram, a time series forecast and 15 % to either side; where the histogram says little, resident
//! for all of its range. It does not weigh costs. Different here: logarithmic cells up to two hours instead of minutes
//! up to four, and the autoregressive model where they fit an ARIMA.

use std::time::Duration;

use crate::histogram::{CLOSED, ENDS, Histogram, LAST};
use crate::plan::Plan;
use crate::price::Terms;
use crate::rule::Rule;
use crate::units;

const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
const MARGIN: f64 = 0.10;
const FORECAST_MARGIN: f64 = 0.15;
/// The share of gaps beyond the histogram from which on a forecast is used.
const OUTSIDE: f64 = 0.5;
/// The coefficient of variation of the cells' weights below which the histogram is not representative.
const REPRESENTATIVE: f64 = 2.0;

pub(crate) fn plan(histogram: &Histogram, forecast: Option<f64>, terms: &Terms) -> Plan {
    let none = Plan::immediately(Rule::HybridHistogram);
    let cells = || histogram.learnt().iter().take(CLOSED).map(|weight| f64::from(*weight));
    let inside: f64 = cells().sum();
    let outside = histogram.learnt().last().copied().map_or(0.0, f64::from);
    if outside > OUTSIDE * (inside + outside)
        && let Some(gap) = forecast
    {
        return none.ready_between(terms, gap * (1.0 - FORECAST_MARGIN), gap * (1.0 + FORECAST_MARGIN));
    }
    let mean = inside / CLOSED as f64;
    let variance = cells().map(|weight| (weight - mean).powi(2)).sum::<f64>() / CLOSED as f64;
    if inside <= 0.0 || variance.sqrt() < REPRESENTATIVE * mean {
        return none.with(Duration::ZERO, units::duration(LAST));
    }
    let head = percentile(cells(), HEAD * inside).0 * (1.0 - MARGIN);
    let tail = percentile(cells(), TAIL * inside).1 * (1.0 + MARGIN);
    none.ready_between(terms, head, tail)
}

/// The ends of the cell where the sum of the weights reaches that.
fn percentile(cells: impl Iterator<Item = f64>, reached: f64) -> (f64, f64) {
    let mut sum = 0.0;
    let mut start = 0.0;
    for (weight, end) in cells.zip(ENDS) {
        sum += weight;
        if sum >= reached {
            return (start, end);
        }
        start = end;
    }
    (start, LAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::cell;
    use crate::price::{Costs, Price};

    fn planned(gaps: &[f64], forecast: Option<f64>) -> Vec<(f64, f64)> {
        let mut histogram = Histogram::new();
        gaps.iter().for_each(|gap| histogram.learn(*gap));
        let terms = Price::default().terms(&Costs::new(Duration::from_secs(1), Duration::ZERO, 1 << 20));
        let plan = plan(&histogram, forecast, &terms);
        plan.intervals().iter().map(|i| (i.from.as_secs_f64(), i.until.as_secs_f64())).collect()
    }

    #[test]
    fn it_is_ready_from_the_head_to_the_tail_with_margins() {
        let at = cell(60.0);
        let [(from, until)] = planned(&[60.0; 20], None)[..] else { panic!("one interval") };
        assert!((from - (ENDS[at - 1] * 0.9 - 1.0)).abs() < 1e-6, "one second earlier, which a reload takes: {from}");
        assert!((until - ENDS[at] * 1.1).abs() < 1e-6, "{until}");
    }

    #[test]
    fn a_head_in_the_first_cell_keeps_the_guest() {
        let gaps: Vec<f64> = (0..40).map(|i| if i % 4 == 0 { 60.0 } else { 0.01 }).collect();
        assert_eq!(planned(&gaps, None)[0].0, 0.0);
    }

    #[test]
    fn an_unrepresentative_histogram_keeps_the_guest_for_the_whole_range() {
        assert_eq!(planned(&[], None), [(0.0, LAST)]);
        assert_eq!(planned(&ENDS.map(|end| end * 0.99), None), [(0.0, LAST)]);
    }

    #[test]
    fn gaps_beyond_the_range_are_forecast() {
        assert_eq!(planned(&[10_000.0; 20], Some(10_000.0)), [(8499.0, 11_500.0)]);
    }
}
