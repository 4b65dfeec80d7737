//! The policy of one guest.

use std::time::Duration;

use crate::explain::{Explanation, Score};
use crate::forecast::{self, Error, Holt, Ses};
use crate::histogram::{self, Histogram};
use crate::history::History;
use crate::plan::Plan;
use crate::price::{Costs, Price, Terms};
use crate::rule::Rule;
use crate::scoreboard::Scoreboard;
use crate::{autoregressive, hazard, hybrid, units};

/// Gaps after which a guest counts as known. Until then ski-rental rules, whose cost is bounded for any gaps.
pub const KNOWN_AFTER: u32 = 8;

/// Gaps that an explanation lists.
const EXPLAINED: usize = 8;

/// What is configured for one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// The exchange rates.
    pub price: Price,
    /// The guest stays resident at least until this age. Default zero.
    pub min_resident: Duration,
}

/// What ended an idle gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Something that no one knew of before: a change, a request.
    Event,
    /// A timer, which was known. The gap tells that no event came until then and is learnt as that; forecasts skip it.
    Timer,
}

/// Learns one guest's idle gaps and plans its residency. About 1 KiB, nothing on the heap.
#[derive(Debug, Clone)]
pub struct GuestPolicy {
    settings: Settings,
    histogram: Histogram,
    history: History,
    ses: Ses,
    holt: Holt,
    /// The autoregressive model's forecast of the next gap, in seconds, and its error: fitted once per gap.
    autoregressive: (Option<f64>, Error),
    advised: Error,
    /// The forecast of someone else for the gap under way, in seconds.
    advice: Option<f32>,
    scoreboard: Scoreboard,
    /// Gaps that were learnt.
    gaps: u32,
}

impl GuestPolicy {
    /// A guest of which nothing is known.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            histogram: Histogram::new(),
            history: History::new(),
            ses: Ses::default(),
            holt: Holt::default(),
            autoregressive: (None, Error::default()),
            advised: Error::default(),
            advice: None,
            scoreboard: Scoreboard::new(),
            gaps: 0,
        }
    }

    /// Changes the settings and keeps what was learnt.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Learns a gap: from the end of the guest's last run, when nothing more was to do, to what ended it. Each rule is
    /// charged, by these costs, for what it would have planned. Call it for each gap, whether the guest was resident or not.
    pub fn gap(&mut self, gap: Duration, end: End, costs: &Costs) {
        let terms = self.settings.price.terms(costs);
        let charges = Rule::ALL.map(|rule| {
            let mut outcome = self.by(rule, &terms).replay(gap.min(units::LONGEST), costs);
            if end == End::Timer {
                // The timer's own reload is charged to none: else a rule would gain by keeping the guest awake for timers.
                (outcome.hit, outcome.delay) = (true, costs.warm_wake);
            }
            terms.cost(&outcome, costs)
        });
        let seconds = units::seconds(gap);
        match end {
            End::Event => {
                self.advised.learn(self.advice.map(f64::from), seconds);
                let (forecast, error) = &mut self.autoregressive;
                error.learn(*forecast, seconds);
                self.ses.learn(seconds);
                self.holt.learn(seconds);
                self.histogram.learn(seconds);
                self.history.push(seconds);
                *forecast = autoregressive::forecast(&self.history);
            }
            End::Timer => self.histogram.censor(seconds),
        }
        self.gaps = self.gaps.saturating_add(1);
        self.advice = None;
        self.scoreboard.charge(charges, self.gaps > KNOWN_AFTER);
    }

    /// Takes someone else's forecast of the gap under way, from its start to the event. It competes like any rule, so a wrong
    /// one rules nothing for long. Plan again afterwards. Holds for this gap only.
    pub fn advise(&mut self, gap: Duration) {
        self.advice = Some(units::seconds(gap) as f32);
    }

    /// The rule in force.
    #[must_use]
    pub fn rule(&self) -> Rule {
        if self.gaps < KNOWN_AFTER { Rule::SkiRental } else { self.scoreboard.ruling() }
    }

    /// When the guest is to be resident in the gap that starts now. `timer`: the age at which the guest's next timer is due,
    /// if there is one; the guest is made ready just before it if that pays, and never kept resident for it. Plan again
    /// when costs, pressure or the timer change. No plan keeps a guest longer than two hours or the break-even age.
    #[must_use]
    pub fn plan(&self, costs: &Costs, timer: Option<Duration>) -> Plan {
        let terms = self.settings.price.terms(costs);
        let longest = units::duration(terms.break_even().max(histogram::LAST));
        let plan = self.by(self.rule(), &terms).ending_at(longest);
        let plan = plan.with(Duration::ZERO, self.settings.min_resident);
        timer.map_or(plan, |due| plan.with_timer(due, &terms))
    }

    /// What one rule plans, without the bounds and timers of [`GuestPolicy::plan`].
    #[must_use]
    pub fn plan_by(&self, rule: Rule, costs: &Costs) -> Plan {
        self.by(rule, &self.settings.price.terms(costs))
    }

    fn by(&self, rule: Rule, terms: &Terms) -> Plan {
        if let Some(age) = rule.fixed() {
            return Plan::resident_until(rule, age);
        }
        match rule {
            Rule::Hazard => hazard::plan(&self.histogram, terms),
            Rule::Ses => forecast::plan(rule, self.ses.forecast(), self.ses.error, terms),
            Rule::Holt => forecast::plan(rule, self.holt.forecast(), self.holt.error, terms),
            Rule::AutoRegressive => {
                let (forecast, error) = self.autoregressive;
                forecast::plan(rule, forecast, error, terms)
            }
            Rule::HybridHistogram => hybrid::plan(&self.histogram, self.autoregressive.0, terms),
            Rule::Advised => forecast::plan(rule, self.advice.map(f64::from), self.advised, terms),
            _ => forecast::ski_rental(rule, terms),
        }
    }

    /// What each byte of a guest that is resident at that age is worth: the seconds of delay that keeping it is expected to
    /// save from now on, less the rent, over its bytes. Under memory pressure drop the guest with the least value first.
    /// Zero for a guest that is not worth its rent. Leaves `min_resident` to the caller.
    #[must_use]
    pub fn value_at(&self, age: Duration, costs: &Costs) -> f64 {
        let terms = self.settings.price.terms(costs);
        let seconds = units::seconds(age);
        let saving = if self.gaps < KNOWN_AFTER {
            // What ski-rental has not spent yet.
            (terms.miss() - terms.rent * seconds).max(0.0)
        } else {
            hazard::saving(&self.histogram, &terms, histogram::cell(seconds))
        };
        saving / costs.bytes.max(1) as f64
    }

    /// Why [`GuestPolicy::plan`] with the same arguments plans what it plans.
    #[must_use]
    pub fn explain(&self, costs: &Costs, timer: Option<Duration>) -> Explanation {
        let plan = self.plan(costs, timer);
        let mut scores: Vec<_> = self.scoreboard.means().map(|(rule, cost)| Score { rule, cost }).collect();
        scores.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        Explanation {
            rule: plan.rule(),
            gaps: self.gaps,
            known: self.gaps >= KNOWN_AFTER,
            last_gaps: self.history.newest().take(EXPLAINED).collect(),
            resident: plan.intervals().to_vec(),
            break_even: self.settings.price.break_even(costs).map(|age| age.as_secs_f64()),
            scores,
        }
    }
}
