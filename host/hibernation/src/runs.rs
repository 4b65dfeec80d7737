//! Sets of pages as runs: what the kernel's calls, which take ranges, want.

use std::ops::Range;

/// A set of page numbers. The runs are sorted, not empty, and do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Range<usize>>);

impl Runs {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Range<usize>> {
        self.0.iter().cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn pages(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// Adds a run that begins at or after the end of the last one.
    pub(crate) fn push(&mut self, run: Range<usize>) {
        match self.0.last_mut() {
            _ if run.is_empty() => {}
            Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
            _ => self.0.push(run),
        }
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.iter().chain(other.iter()).collect();
        all.sort_unstable_by_key(|run| run.start);
        all.into_iter().collect()
    }

    /// What is in this set and not in the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        let mut cuts = other.iter().peekable();
        for run in self.iter() {
            let mut start = run.start;
            while let Some(cut) = cuts.next_if(|cut| cut.end <= run.end) {
                if cut.end > start {
                    rest.push(start..cut.start.max(start));
                    start = cut.end;
                }
            }
            // This cut reaches beyond the run and may concern the next one, too.
            let end = cuts.peek().map_or(run.end, |cut| cut.start.clamp(start, run.end.max(start)));
            rest.push(start..end);
        }
        rest
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// With the gaps of at most so many pages filled.
    pub(crate) fn bridged(&self, gap: usize) -> Self {
        let mut bridged = Self::default();
        for run in self.iter() {
            match bridged.0.last_mut() {
                Some(last) if run.start.saturating_sub(last.end) <= gap => last.end = run.end,
                _ => bridged.0.push(run),
            }
        }
        bridged
    }

    /// Its longest runs, at most so many, each of at least so many pages.
    pub(crate) fn longest(&self, most: usize, pages: usize) -> Self {
        let mut long: Vec<_> = self.iter().filter(|run| run.len() >= pages).collect();
        if long.len() > most {
            long.sort_by_key(|run| std::cmp::Reverse(run.len()));
            long.truncate(most);
            long.sort_unstable_by_key(|run| run.start);
        }
        Self(long)
    }
}

impl From<Range<usize>> for Runs {
    fn from(run: Range<usize>) -> Self {
        std::iter::once(run).collect()
    }
}

impl FromIterator<Range<usize>> for Runs {
    /// Of runs sorted by their beginning.
    fn from_iter<T: IntoIterator<Item = Range<usize>>>(runs: T) -> Self {
        let mut collected = Self::default();
        runs.into_iter().for_each(|run| collected.push(run));
        collected
    }
}

#[cfg(test)]
mod tests {
    use rand_core::{Rng, SeedableRng};
    use rand_xorshift::XorShiftRng;

    use super::*;

    const PAGES: usize = 40;

    fn random(random: &mut XorShiftRng) -> (Vec<bool>, Runs) {
        let bits = random.next_u64() & random.next_u64().wrapping_shl(random.next_u32() % 8);
        let pages: Vec<_> = (0..PAGES).map(|page| bits >> page & 1 == 1).collect();
        let runs = (0..PAGES).filter(|page| pages[*page]).map(|page| page..page + 1).collect();
        (pages, runs)
    }

    fn pages(runs: &Runs) -> Vec<bool> {
        (0..PAGES).map(|page| runs.iter().any(|run| run.contains(&page))).collect()
    }

    #[test]
    fn runs_behave_as_sets() {
        let mut generator = XorShiftRng::seed_from_u64(6);
        for round in 0..20_000 {
            let ((a, of_a), (b, of_b)) = (random(&mut generator), random(&mut generator));
            let both = |test: fn(bool, bool) -> bool| a.iter().zip(&b).map(|(a, b)| test(*a, *b)).collect::<Vec<_>>();
            for (name, runs, expected) in [
                ("union", of_a.union(&of_b), both(|a, b| a || b)),
                ("minus", of_a.minus(&of_b), both(|a, b| a && !b)),
                ("and", of_a.and(&of_b), both(|a, b| a && b)),
            ] {
                assert_eq!(pages(&runs), expected, "{name} in round {round}: {of_a:?}, {of_b:?}");
                assert_eq!(runs, runs.iter().collect(), "{name} in round {round} is not in its normal form");
                assert_eq!(runs.pages(), expected.iter().filter(|page| **page).count());
            }
        }
    }

    #[test]
    fn small_gaps_are_bridged_and_large_ones_are_not() {
        let runs = Runs(vec![0..1, 3..4, 7..9]);
        assert_eq!(runs.bridged(1), runs);
        assert_eq!(runs.bridged(2), Runs(vec![0..4, 7..9]));
        assert_eq!(runs.bridged(3), Runs::from(0..9));
    }

    #[test]
    fn the_longest_runs_stay_in_order() {
        let runs = Runs(vec![0..5, 6..7, 10..14, 20..26]);
        assert_eq!(runs.longest(2, 1), Runs(vec![0..5, 20..26]));
        assert_eq!(runs.longest(9, 4), Runs(vec![0..5, 10..14, 20..26]));
    }
}
