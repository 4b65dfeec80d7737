//! Why a guest is resident when it is.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::guest::KNOWN_AFTER;
use crate::plan::Interval;
use crate::rule::Rule;

/// A decision and its grounds. `Display` writes it for people, over several lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The rule in force.
    pub rule: Rule,
    /// How many gaps were learnt.
    pub gaps: u32,
    /// Whether that is enough for a choice; if not, ski-rental rules.
    pub known: bool,
    /// The last gaps that events ended, in seconds, the newest first; at most eight.
    pub last_gaps: Vec<f64>,
    /// When the guest is resident, by age.
    pub resident: Vec<Interval>,
    /// The age in seconds at which residency has cost as much as a cold wake; None if it costs nothing.
    pub break_even: Option<f64>,
    /// What each rule cost lately, the cheapest first.
    pub scores: Vec<Score>,
}

/// The recent cost of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The rule.
    pub rule: Rule,
    /// Seconds of delay per gap, memory and work included.
    pub cost: f32,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule in force: {}", self.rule)?;
        if self.known {
            writeln!(f, " (learnt {} gaps)", self.gaps)?;
        } else {
            writeln!(f, " (learnt {} gaps, others compete from {KNOWN_AFTER} on)", self.gaps)?;
        }
        write!(f, "resident at ages:")?;
        if self.resident.is_empty() {
            write!(f, " none")?;
        }
        for interval in &self.resident {
            write!(f, " {:.1?}..", interval.from)?;
            if interval.until != Duration::MAX {
                write!(f, "{:.1?}", interval.until)?;
            }
        }
        match self.break_even {
            Some(age) => writeln!(f, "\nresidency costs as much as a cold wake after: {age:.1}s")?,
            None => writeln!(f, "\nresidency costs nothing")?,
        }
        write!(f, "last gaps, newest first:")?;
        self.last_gaps.iter().try_for_each(|gap| write!(f, " {gap:.1}s"))?;
        writeln!(f, "\ncost per gap lately, in milliseconds of delay:")?;
        self.scores.iter().try_for_each(|score| writeln!(f, "  {:<16} {:>10.3}", score.rule, score.cost * 1000.0))
    }
}
