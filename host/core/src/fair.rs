//! Fair share across guests: start-time fair queueing (Goyal, Vin, Cheng 1996).
//!
//! Each guest has a tag: the virtual time at which its next run may start. A run pushes the tag on by cost / weight, and
//! the ready guest with the lowest tag goes first. Virtual time is the tag of the guest served last; a guest that was
//! away starts there, so it neither saves up a claim nor pays for what it used while nobody else wanted it.
//!
//! With one run at a time, two guests `f` and `g` that both always have work satisfy, over every interval,
//! `|W_f / w_f - W_g / w_g| <= c_f / w_f + c_g / w_g`, where `W` is the cost of their runs, `w` the weight and `c` the
//! dearest single run. The cost is known only when a run ends, so with several runs at once a guest may be ahead by
//! the runs that it has under way, which its concurrency bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The weight of a guest whose configuration names none.
pub const DEFAULT_WEIGHT: u32 = 100;

/// What a run costs at least: instantiating, calling and dropping a small guest. It is charged at the start, so guests
/// with equal tags take turns, and a guest that reports no cost cannot hold the front.
pub const MIN_COST: Duration = Duration::from_micros(50);

/// Virtual time per microsecond of cost at weight 1: keeps the division by the weight exact enough.
const SCALE: u64 = 1_000;

#[derive(Debug)]
struct Account {
    tag: u64,
    weight: u32,
    /// The place in the order of ready guests.
    place: Option<(u64, u64)>,
}

/// The order in which ready guests are served. Every operation is O(log n).
#[derive(Debug)]
pub struct Fair<K> {
    accounts: BTreeMap<K, Account>,
    ready: BTreeSet<((u64, u64), K)>,
    virtual_time: u64,
    /// Breaks ties: who became ready first.
    sequence: u64,
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), ready: BTreeSet::new(), virtual_time: 0, sequence: 0 }
    }
}

impl<K: Ord + Copy> Fair<K> {
    /// Adds a guest, or changes its weight for the runs to come. A weight of 0 counts as 1.
    pub fn set_weight(&mut self, key: K, weight: u32) {
        let tag = self.virtual_time;
        self.accounts.entry(key).or_insert(Account { tag, weight, place: None }).weight = weight.max(1);
    }

    /// Removes a guest.
    pub fn remove(&mut self, key: K) {
        self.set_ready(key, false);
        self.accounts.remove(&key);
    }

    /// Says whether a guest has work that may start.
    pub fn set_ready(&mut self, key: K, ready: bool) {
        let Some(account) = self.accounts.get_mut(&key) else { return };
        match (ready, account.place) {
            (true, None) => {
                account.tag = account.tag.max(self.virtual_time);
                self.sequence = self.sequence.wrapping_add(1);
                let place = (account.tag, self.sequence);
                account.place = Some(place);
                self.ready.insert((place, key));
            }
            (false, Some(place)) => {
                account.place = None;
                self.ready.remove(&(place, key));
            }
            _ => {}
        }
    }

    /// Whether no guest is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes the guest whose turn it is. It is no longer ready until [`Fair::set_ready`] says so again.
    pub fn take(&mut self) -> Option<K> {
        let ((tag, _), key) = self.ready.pop_first()?;
        self.virtual_time = self.virtual_time.max(tag);
        let account = self.accounts.get_mut(&key)?;
        account.place = None;
        account.tag = account.tag.saturating_add(charge(MIN_COST, account.weight));
        Some(key)
    }

    /// Charges a run that ended with what it cost beyond [`MIN_COST`].
    pub fn settle(&mut self, key: K, cost: Duration) {
        let Some(account) = self.accounts.get_mut(&key) else { return };
        account.tag = account.tag.saturating_add(charge(cost.saturating_sub(MIN_COST), account.weight));
        if let Some(place) = account.place {
            let moved = (account.tag, place.1);
            account.place = Some(moved);
            self.ready.remove(&(place, key));
            self.ready.insert((moved, key));
        }
    }
}

fn charge(cost: Duration, weight: u32) -> u64 {
    let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(SCALE) / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(fair: &mut Fair<u32>, cost: Duration) -> u32 {
        let key = fair.take().unwrap();
        fair.settle(key, cost);
        fair.set_ready(key, true);
        key
    }

    #[test]
    fn service_follows_the_weights() {
        let mut fair = Fair::default();
        for (key, weight) in [(1, 100), (2, 200), (3, 700)] {
            fair.set_weight(key, weight);
            fair.set_ready(key, true);
        }
        let mut served = [0; 4];
        for _ in 0..1_000 {
            served[serve(&mut fair, Duration::from_millis(1)) as usize] += 1;
        }
        for (count, share) in served.into_iter().zip([0_i32, 100, 200, 700]) {
            assert!((count - share).abs() <= 2, "{served:?}");
        }
    }

    #[test]
    fn a_guest_that_was_away_gets_no_more_than_its_share_when_it_returns() {
        let mut fair = Fair::default();
        for key in [1, 2] {
            fair.set_weight(key, 100);
        }
        fair.set_ready(1, true);
        for _ in 0..1_000 {
            serve(&mut fair, Duration::from_millis(1));
        }
        fair.set_ready(2, true);
        let of_two = (0..10).filter(|_| serve(&mut fair, Duration::from_millis(1)) == 2).count();
        assert_eq!(of_two, 5);
    }

    #[test]
    fn what_was_used_while_nobody_wanted_it_is_not_held_against_a_guest() {
        let mut fair = Fair::default();
        for key in [1, 2] {
            fair.set_weight(key, 100);
        }
        fair.set_ready(1, true);
        for _ in 0..100 {
            serve(&mut fair, Duration::from_secs(1));
        }
        fair.set_ready(2, true);
        let of_one = (0..10).filter(|_| serve(&mut fair, Duration::from_millis(1)) == 1).count();
        // The last run of guest 1 is still owed; nothing before it is.
        assert_eq!(of_one, 0);
        let of_one = (0..1_990).filter(|_| serve(&mut fair, Duration::from_millis(1)) == 1).count();
        assert!((495..=505).contains(&of_one), "{of_one}");
    }

    #[test]
    fn runs_that_cost_nothing_still_take_turns() {
        let mut fair = Fair::default();
        for key in [1, 2] {
            fair.set_weight(key, 100);
            fair.set_ready(key, true);
        }
        let served: Vec<_> = (0..4).map(|_| serve(&mut fair, Duration::ZERO)).collect();
        assert_eq!(served, [1, 2, 1, 2]);
    }

    #[test]
    fn a_removed_guest_is_not_served_and_not_charged() {
        let mut fair = Fair::default();
        fair.set_weight(1, 0);
        fair.set_ready(1, true);
        fair.remove(1);
        fair.settle(1, Duration::from_secs(1));
        fair.set_ready(1, true);
        assert_eq!(fair.take(), None);
        assert!(fair.is_empty());
    }
}
