//! `histogram`: the middle of the gaps as the host's own policy weighs them. Bursts and outages, which draw every mean and
//! every regression, move it little.

/// Gaps after which a gap weighs half: as in the decayed histogram of `wasm-operator-policy`.
const HALF_LIFE: f64 = 50.0;

/// The gap below and above which half of the weight lies.
pub(super) fn forecast(series: &[f64]) -> Option<f64> {
    let mut weighed: Vec<(f64, f64)> =
        series.iter().rev().enumerate().map(|(age, gap)| (*gap, (-(age as f64) / HALF_LIFE).exp2())).collect();
    weighed.sort_by(|one, other| one.0.total_cmp(&other.0));
    let half = weighed.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    weighed.into_iter().find_map(|(gap, weight)| {
        below += weight;
        (below >= half).then_some(gap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_does_not_move_the_middle() {
        let gaps = [5.0, 5.1, 0.01, 0.02, 4.9, 5.0, 300.0, 5.2, 5.1];
        assert_eq!(forecast(&gaps), Some(5.0));
        assert_eq!(forecast(&[]), None);
    }

    #[test]
    fn what_is_new_weighs_more() {
        let mut gaps = vec![5.0; 60];
        gaps.extend([20.0; 40]);
        assert_eq!(forecast(&gaps), Some(20.0));
    }
}
