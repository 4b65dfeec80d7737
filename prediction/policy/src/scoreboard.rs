//! Which rule had the least cost lately.

use crate::rule::{RULES, Rule};

/// The weight of the past after each gap: half after 20 gaps. Shorter follows chance, longer a guest that it no longer is.
const DECAY: f32 = 0.965_936_3;

/// Another rule must cost less than this share of what the ruling one costs: switching for less would follow chance.
const DAMPING: f32 = 0.9;

/// Decayed costs of all rules.
#[derive(Debug, Clone)]
pub(crate) struct Scoreboard {
    /// Seconds of delay, in the order of [`Rule::ALL`].
    costs: [f32; RULES],
    /// The decayed number of gaps.
    weight: f32,
    ruling: Rule,
}

impl Scoreboard {
    pub(crate) fn new() -> Self {
        Self { costs: [0.0; RULES], weight: 0.0, ruling: Rule::SkiRental }
    }

    /// Charges each rule. `settled`: enough is known for damping, so that the first choice is free.
    pub(crate) fn charge(&mut self, costs: [f64; RULES], settled: bool) {
        self.weight = self.weight * DECAY + 1.0;
        for (sum, cost) in self.costs.iter_mut().zip(costs) {
            *sum = *sum * DECAY + cost as f32;
        }
        let ruling = if settled { self.mean(self.ruling) * DAMPING } else { f32::INFINITY };
        // The first of equals, which is the one that adapts best.
        let best = self.means().reduce(|best, other| if other.1 < best.1 { other } else { best });
        if let Some((rule, _)) = best.filter(|(_, mean)| *mean < ruling) {
            self.ruling = rule;
        }
    }

    pub(crate) fn ruling(&self) -> Rule {
        self.ruling
    }

    /// Seconds of delay per recent gap, for each rule.
    pub(crate) fn means(&self) -> impl Iterator<Item = (Rule, f32)> + '_ {
        Rule::ALL
            .into_iter()
            .zip(self.costs.iter().map(|cost| if self.weight > 0.0 { cost / self.weight } else { 0.0 }))
    }

    fn mean(&self, rule: Rule) -> f32 {
        self.means().find(|(other, _)| *other == rule).map_or(f32::INFINITY, |(_, mean)| mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(of: &[(Rule, f64)]) -> [f64; RULES] {
        Rule::ALL.map(|rule| of.iter().find(|(other, _)| *other == rule).map_or(10.0, |(_, cost)| *cost))
    }

    #[test]
    fn a_slightly_better_rule_does_not_take_over_and_a_clearly_better_one_does() {
        let mut board = Scoreboard::new();
        board.charge(costs(&[(Rule::Ses, 1.0)]), false);
        assert_eq!(board.ruling(), Rule::Ses);
        for _ in 0..1000 {
            board.charge(costs(&[(Rule::Ses, 1.0), (Rule::Holt, 0.95)]), true);
            assert_eq!(board.ruling(), Rule::Ses);
        }
        for _ in 0..100 {
            board.charge(costs(&[(Rule::Ses, 1.0), (Rule::Holt, 0.8)]), true);
        }
        assert_eq!(board.ruling(), Rule::Holt);
    }

    #[test]
    fn the_adaptive_rule_is_preferred_among_equals() {
        let mut board = Scoreboard::new();
        board.charge([1.0; RULES], false);
        assert_eq!(board.ruling(), Rule::Hazard);
    }

    #[test]
    fn a_mean_is_the_decayed_cost_over_the_decayed_number_of_gaps() {
        let mut board = Scoreboard::new();
        board.charge([1.0; RULES], true);
        (0..20).for_each(|_| board.charge([0.0; RULES], true));
        let weight: f32 = (0..=20).map(|n| DECAY.powi(n)).sum();
        assert!((board.mean(Rule::Never) - 0.5 / weight).abs() < 1e-4);
    }
}
