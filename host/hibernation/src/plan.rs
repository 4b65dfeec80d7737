//! Which pages are written and what is mapped where: the part of a hibernation that needs no kernel.
//!
//! A page of a memory is one of three. *Private*: anonymous memory that the guest has written (or that was touched
//! before the first hibernation). *Saved*: a page of the guest's own file. *Shared*: a page of the component's image. Pages of
//! files that are not present are unchanged; anonymous pages that are not present are zero, and are holes in the own file.

use crate::runs::Runs;

/// Runs of the shared image that are kept in one memory. Each splits the memory into two more areas, and the kernel grants a
/// process 65,530 of them: a thousand guests stay below that.
const SHARED_RUNS: usize = 24;
/// Pages that are worth an area of their own.
const SHARED_PAGES: usize = 4;

/// What one hibernation does to a memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Pages to write to the own file.
    pub(crate) write: Runs,
    /// Pages where the own file is to be mapped: everything that is not shared.
    pub(crate) map: Runs,
    /// Pages that stay with the image.
    pub(crate) shared: Runs,
}

/// `shared` are the pages that are mapped from the image, as far as the guest has not written to them (`private`).
pub(crate) fn plan(pages: usize, private: &Runs, shared: &Runs) -> Plan {
    let clean = shared.minus(private);
    let kept = worth_sharing(&clean);
    Plan { write: private.union(&clean.minus(&kept)), map: Runs::from(0..pages).minus(&kept), shared: kept }
}

/// Of the runs that could be mapped from the image, those that are.
pub(crate) fn worth_sharing(equal: &Runs) -> Runs {
    equal.longest(SHARED_RUNS, SHARED_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[std::ops::Range<usize>]) -> Runs {
        runs.iter().cloned().collect()
    }

    #[test]
    fn a_memory_without_an_image_is_mapped_as_a_whole_and_written_where_it_is_private() {
        let private = runs(&[2..3, 7..9]);
        let plan = plan(20, &private, &Runs::default());
        assert_eq!(plan, Plan { write: private, map: Runs::from(0..20), shared: Runs::default() });
    }

    #[test]
    fn what_is_left_of_a_shared_run_is_kept_or_written_but_never_taken_for_zero() {
        let plan = plan(100, &runs(&[12..13, 40..41, 90..91]), &Runs::from(10..50));
        assert_eq!(plan.shared, runs(&[13..40, 41..50]));
        assert_eq!(plan.write, runs(&[10..13, 40..41, 90..91]), "10..12 is too short to be kept, so it is copied");
        assert_eq!(plan.map, runs(&[0..13, 40..41, 50..100]));
    }

    #[test]
    fn many_holes_in_the_image_do_not_make_many_areas() {
        let private = (0..200).map(|run| run * 10..run * 10 + 1).collect();
        let plan = plan(2_000, &private, &Runs::from(0..2_000));
        assert_eq!(plan.shared.iter().count(), SHARED_RUNS);
        assert_eq!(plan.write, Runs::from(0..2_000).minus(&plan.shared));
        assert_eq!(plan.map, plan.write);
    }
}
