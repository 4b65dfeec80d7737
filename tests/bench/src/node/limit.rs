//! How little memory a variant bears.

use harness::Result;

/// The smallest limit in MiB, at most `enough`, that `bears` accepts; None when it does not even accept `enough`. Assumes that what is
/// borne is borne with more as well.
pub(super) async fn smallest(enough: u64, mut bears: impl AsyncFnMut(u64) -> Result<bool>) -> Result<Option<u64>> {
    if !bears(enough).await? {
        return Ok(None);
    }
    // `low` is not borne: no process runs in nothing.
    let (mut low, mut high) = (0, enough);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if bears(middle).await? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn search(enough: u64, needed: u64) -> (Option<u64>, usize) {
        let mut tries = 0;
        let found = smallest(enough, async |limit| {
            tries += 1;
            Ok(limit >= needed)
        });
        (found.await.unwrap(), tries)
    }

    #[tokio::test]
    async fn the_smallest_one_is_found_in_few_tries() {
        for needed in 1..=64 {
            let (found, tries) = search(64, needed).await;
            assert_eq!(found, Some(needed));
            assert!(tries <= 7, "{tries}");
        }
    }

    #[tokio::test]
    async fn none_is_found_where_not_even_the_largest_is_enough() {
        assert_eq!(search(8, 9).await, (None, 1));
    }

    #[tokio::test]
    async fn a_failure_to_measure_is_not_taken_for_an_answer() {
        let failed = smallest(8, async |_| harness::bail!("no cluster")).await;
        assert!(failed.is_err());
    }
}
