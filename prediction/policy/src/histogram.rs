//! A decayed histogram of idle gaps with cells of equal ratio.

/// The first cell ends here, in seconds: shorter gaps are not told apart.
pub(crate) const FIRST: f64 = 0.1;

/// The last cell starts here, in seconds: longer gaps are not told apart.
pub(crate) const LAST: f64 = 7200.0;

/// Cells between [`FIRST`] and [`LAST`]: each is 6 % wider than the one before. Twice as wide, a
/// guest that is made ready for the cell of its period waits too long to be worth it.
const INNER: usize = 192;

/// Cells with an upper end: the first and the inner ones.
pub(crate) const CLOSED: usize = INNER + 1;

/// With the last, open one.
pub(crate) const CELLS: usize = CLOSED + 1;

/// 72000^(1/192), the ratio of the ends of a cell.
const RATIO: f64 = 1.059_982_284_004_748;

/// Upper ends of the closed cells, in seconds.
pub(crate) const ENDS: [f64; CLOSED] = ends();

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn ends() -> [f64; CLOSED] {
    let mut ends = [FIRST; CLOSED];
    let mut i = 1;
    while i < CLOSED {
        ends[i] = ends[i - 1] * RATIO;
        i += 1;
    }
    ends[CLOSED - 1] = LAST;
    ends
}

/// The weight of the past after each gap: half after 50 gaps, enough to fill the cells that matter.
const DECAY: f32 = 0.986_232_7;

/// The weight of one gap, spread evenly over the cells: what is believed before anything is learnt, namely that every
/// order of magnitude is as likely. It keeps a guest that outlived all its known gaps resident about as long as
/// ski-rental would, instead of no time or for ever.
const PRIOR: f32 = 1.0 / CELLS as f32;

/// Gaps by length. The weights include the prior.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    learnt: [f32; CELLS],
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { learnt: [0.0; CELLS] }
    }

    /// The weights of all cells, in ascending order of the gaps.
    pub(crate) fn weights(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + '_ {
        self.learnt.iter().map(|weight| f64::from(weight + PRIOR))
    }

    /// The weights without the prior.
    pub(crate) fn learnt(&self) -> &[f32; CELLS] {
        &self.learnt
    }

    /// Learns a gap of so many seconds.
    pub(crate) fn learn(&mut self, gap: f64) {
        self.decay();
        if let Some(cell) = self.learnt.get_mut(cell(gap)) {
            *cell += 1.0;
        }
    }

    /// Learns that a gap was cut short at that age, in seconds, before its event came. Its weight goes to the later cells
    /// in proportion to theirs, which is Efron's (1967) redistribution to the right and gives the Kaplan-Meier estimate.
    pub(crate) fn censor(&mut self, age: f64) {
        self.decay();
        let later = self.learnt.iter_mut().skip(cell(age) + 1);
        let total: f32 = later.map(|weight| *weight + PRIOR).sum();
        if total > 0.0 {
            for weight in self.learnt.iter_mut().skip(cell(age) + 1) {
                *weight += (*weight + PRIOR) / total;
            }
        } else if let Some(last) = self.learnt.last_mut() {
            *last += 1.0;
        }
    }

    fn decay(&mut self) {
        for weight in &mut self.learnt {
            *weight *= DECAY;
        }
    }
}

/// The cell that a gap of so many seconds belongs to.
pub(crate) fn cell(gap: f64) -> usize {
    ENDS.partition_point(|end| *end <= gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_are_evenly_spaced_up_to_two_hours() {
        assert!((RATIO.powi(INNER as i32) - LAST / FIRST).abs() < 1e-6 * LAST / FIRST, "{}", RATIO.powi(192));
        assert!(ENDS.is_sorted_by(|a, b| a < b));
        assert!((ENDS[191] * RATIO - LAST).abs() < 1e-6);
        assert_eq!(
            (cell(0.0), cell(0.0999), cell(0.1), cell(7199.9), cell(7200.0), cell(1e9)),
            (0, 0, 1, 192, 193, 193)
        );
    }

    #[test]
    fn half_of_a_gaps_weight_is_left_after_fifty_others() {
        let mut histogram = Histogram::new();
        histogram.learn(10.0);
        (0..50).for_each(|_| histogram.learn(1000.0));
        assert!((histogram.learnt()[cell(10.0)] - 0.5).abs() < 1e-3);
    }

    #[test]
    fn a_gap_cut_short_counts_for_the_later_cells_in_proportion() {
        let mut histogram = Histogram::new();
        histogram.learn(1.0);
        for _ in 0..3 {
            histogram.learn(100.0);
        }
        histogram.learn(1000.0);
        let before = *histogram.learnt();
        histogram.censor(10.0);
        let after = histogram.learnt();
        assert!((after[cell(1.0)] - before[cell(1.0)] * DECAY).abs() < 1e-6, "earlier cells only decay");
        let gained = |gap: f64| after[cell(gap)] - before[cell(gap)] * DECAY;
        assert!((gained(100.0) / gained(1000.0) - 2.9).abs() < 0.2, "{} {}", gained(100.0), gained(1000.0));
        let total: f32 = after.iter().zip(before).map(|(after, before)| after - before * DECAY).sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
    }

    #[test]
    fn a_gap_cut_short_beyond_the_last_cell_counts_for_that() {
        let mut histogram = Histogram::new();
        histogram.censor(1e6);
        assert_eq!(histogram.learnt()[CELLS - 1], 1.0);
    }
}
