//! Which guest regularly wakes after which other guest's writes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::price::{Costs, Price};
use crate::units;

/// A wake counts as following a write for this long. Writes within it are one occasion. 5 s: controllers react to each
/// other's writes within milliseconds, or after a backoff of a second or two.
pub const CORRELATION_WINDOW: Duration = Duration::from_secs(5);

/// Guests whose writes are followed at once; the one that wrote longest ago is forgotten. About 0.3 KiB each.
pub const MAX_LEADERS: usize = 1024;

/// Guests that are remembered as following one: what a controller writes concerns few others.
pub const MAX_FOLLOWERS: usize = 4;

/// Occasions that a wake is attributed to, the latest ones. Bounds the work of each wake.
const MAX_OCCASIONS: usize = 32;

/// The weight of the past after each occasion: half after 20.
const DECAY: f32 = 0.965_936_3;

/// Occasions before anything is concluded from them.
const LEAST_OCCASIONS: f32 = 4.0;

/// A follower below this weight may be replaced by another.
const FORGOTTEN: f32 = 0.5;

/// The weight of the newest lag.
const LAG: f32 = 0.2;

/// A guest to be made ready now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Follower<G> {
    /// Who.
    pub guest: G,
    /// How long it stays resident if no event comes.
    pub hold: Duration,
    /// The chance that an event comes within [`CORRELATION_WINDOW`].
    pub chance: f32,
}

/// Learns which guest `G` wakes after which. Bounded by [`MAX_LEADERS`] and [`MAX_FOLLOWERS`].
#[derive(Debug, Clone)]
pub struct Correlations<G> {
    leaders: BTreeMap<G, Leader<G>>,
    /// The latest occasions, the oldest first.
    recent: VecDeque<(G, Duration)>,
}

#[derive(Debug, Clone)]
struct Leader<G> {
    /// When the occasion under way began.
    since: Duration,
    /// The decayed number of occasions.
    occasions: f32,
    followers: Vec<Pair<G>>,
}

#[derive(Debug, Clone)]
struct Pair<G> {
    guest: G,
    /// The decayed number of occasions on which it woke.
    wakes: f32,
    /// Smoothed seconds from the write to the wake.
    lag: f32,
    /// Whether it woke on the occasion under way.
    counted: bool,
}

impl<G> Default for Correlations<G> {
    fn default() -> Self {
        Self { leaders: BTreeMap::new(), recent: VecDeque::new() }
    }
}

impl<G: Copy + Ord> Correlations<G> {
    /// Nothing learnt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest wrote something. Times are since an arbitrary monotonic start.
    pub fn wrote(&mut self, guest: G, at: Duration) {
        if let Some(leader) = self.leaders.get(&guest)
            && at.saturating_sub(leader.since) < CORRELATION_WINDOW
        {
            return;
        }
        if !self.leaders.contains_key(&guest) && self.leaders.len() >= MAX_LEADERS {
            let oldest = self.leaders.iter().min_by_key(|(_, leader)| leader.since).map(|(guest, _)| *guest);
            oldest.and_then(|oldest| self.leaders.remove(&oldest));
        }
        let new = || Leader { since: at, occasions: 0.0, followers: Vec::new() };
        let leader = self.leaders.entry(guest).or_insert_with(new);
        leader.since = at;
        leader.occasions = leader.occasions * DECAY + 1.0;
        for pair in &mut leader.followers {
            pair.wakes *= DECAY;
            pair.counted = false;
        }
        if self.recent.len() >= MAX_OCCASIONS {
            self.recent.pop_front();
        }
        self.recent.push_back((guest, at));
    }

    /// A guest's idle gap was ended by an event, whether it was resident or not.
    pub fn woke(&mut self, guest: G, at: Duration) {
        while self.recent.front().is_some_and(|(_, since)| at.saturating_sub(*since) > CORRELATION_WINDOW) {
            self.recent.pop_front();
        }
        for (leader, since) in self.recent.iter().filter(|(leader, _)| *leader != guest) {
            if let Some(leader) = self.leaders.get_mut(leader).filter(|leader| leader.since == *since) {
                leader.followed(guest, units::seconds(at.saturating_sub(*since)) as f32);
            }
        }
    }

    /// Those guests that are worth making ready now that this one has written: the chance that their event comes times what
    /// it saves exceeds the work, and the memory until then. `costs` gives None for guests that must not be made ready, such
    /// as those that are resident.
    pub fn followers(
        &self,
        guest: G,
        price: &Price,
        mut costs: impl FnMut(G) -> Option<Costs>,
    ) -> impl Iterator<Item = Follower<G>> {
        let leader = self.leaders.get(&guest).filter(|leader| leader.occasions >= LEAST_OCCASIONS);
        leader.into_iter().flat_map(|leader| leader.followers.iter().map(|pair| (pair, leader.occasions))).filter_map(
            move |(pair, occasions)| {
                // As if there had been one occasion more, without a wake: a few occasions prove little.
                let chance = pair.wakes / (occasions + 1.0);
                pair.worth(chance, price, &costs(pair.guest)?)
            },
        )
    }

    /// Forgets a guest that was removed.
    pub fn forget(&mut self, guest: G) {
        self.leaders.remove(&guest);
        self.leaders.values_mut().for_each(|leader| leader.followers.retain(|pair| pair.guest != guest));
        self.recent.retain(|(other, _)| *other != guest);
    }
}

impl<G: Copy + Ord> Leader<G> {
    fn followed(&mut self, guest: G, lag: f32) {
        if let Some(pair) = self.followers.iter_mut().find(|pair| pair.guest == guest) {
            if !pair.counted {
                pair.counted = true;
                pair.wakes += 1.0;
                pair.lag += LAG * (lag - pair.lag);
            }
            return;
        }
        let new = Pair { guest, wakes: 1.0, lag, counted: true };
        if self.followers.len() < MAX_FOLLOWERS {
            self.followers.push(new);
        } else if let Some(weakest) = self.followers.iter_mut().min_by(|a, b| a.wakes.total_cmp(&b.wakes))
            && weakest.wakes < FORGOTTEN
        {
            *weakest = new;
        }
    }
}

impl<G: Copy> Pair<G> {
    fn worth(&self, chance: f32, price: &Price, costs: &Costs) -> Option<Follower<G>> {
        let terms = price.terms(costs);
        let lag = f64::from(self.lag);
        // Twice the usual lag, and the time that making ready takes.
        let hold = (2.0 * lag + terms.lead).min(CORRELATION_WINDOW.as_secs_f64());
        let saved = f64::from(chance) * (terms.delay.min(lag) + terms.work);
        let resident = f64::from(chance) * lag + f64::from(1.0 - chance) * hold;
        let pays = saved > terms.work + terms.overhead + terms.rent * resident;
        pays.then(|| Follower { guest: self.guest, hold: units::duration(hold), chance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 1;
    const B: u32 = 2;

    /// A wake of 300 ms.
    fn costs(_: u32) -> Option<Costs> {
        Some(Costs::new(Duration::from_millis(300), Duration::ZERO, 10 << 20))
    }

    fn followers(correlations: &Correlations<u32>, guest: u32) -> Vec<u32> {
        correlations.followers(guest, &Price::default(), costs).map(|follower| follower.guest).collect()
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A writes each minute; B wakes 500 ms later on those occasions that are told.
    fn observed(occasions: u64, follows: impl Fn(u64) -> bool) -> Correlations<u32> {
        let mut correlations = Correlations::new();
        for n in 0..occasions {
            correlations.wrote(A, ms(n * 60_000));
            if follows(n) {
                correlations.woke(B, ms(n * 60_000 + 500));
            }
        }
        correlations
    }

    #[test]
    fn a_guest_that_follows_regularly_is_made_ready_for_twice_its_lag() {
        let correlations = observed(10, |_| true);
        let [follower] = correlations.followers(A, &Price::default(), costs).collect::<Vec<_>>()[..] else {
            panic!("one follower");
        };
        assert_eq!((follower.guest, follower.hold), (B, ms(1300)), "twice 500 ms and the reload");
        assert!(follower.chance > 0.85 && follower.chance < 1.0, "{follower:?}");
        assert_eq!(followers(&correlations, B), []);
    }

    #[test]
    fn nothing_is_concluded_from_a_few_occasions() {
        assert_eq!(followers(&observed(3, |_| true), A), []);
    }

    #[test]
    fn a_guest_that_follows_rarely_is_left_asleep() {
        assert_eq!(followers(&observed(100, |n| n % 4 == 0), A), []);
    }

    #[test]
    fn a_follower_that_stops_following_is_forgotten() {
        assert_eq!(followers(&observed(100, |n| n < 60), A), []);
    }

    #[test]
    fn it_must_pay() {
        let correlations = observed(50, |_| true);
        let with = |costs: Option<Costs>| correlations.followers(A, &Price::default(), |_| costs).count();
        assert_eq!(with(Some(Costs::new(ms(300), Duration::ZERO, 10 << 20))), 1);
        assert_eq!(with(Some(Costs::new(ms(300), Duration::ZERO, 100 << 30))), 0, "memory is dearer than the delay");
        assert_eq!(with(Some(Costs::new(Duration::from_micros(100), Duration::ZERO, 0))), 0, "it wakes fast anyway");
        assert_eq!(with(None), 0, "it must not be made ready");
    }

    #[test]
    fn writes_in_a_row_are_one_occasion() {
        let mut correlations = Correlations::new();
        for n in 0..10 {
            (0..20).for_each(|i| correlations.wrote(A, ms(n * 60_000 + i * 10)));
            correlations.woke(B, ms(n * 60_000 + 500));
        }
        assert_eq!(followers(&correlations, A), [B]);
    }

    #[test]
    fn a_wake_long_after_or_before_a_write_follows_nothing() {
        let mut correlations = Correlations::new();
        for n in 0..20 {
            correlations.wrote(A, ms(n * 60_000));
            correlations.woke(B, ms(n * 60_000 + 5_001));
            correlations.woke(A, ms(n * 60_000 + 5_002));
        }
        assert_eq!(followers(&correlations, A), []);
    }

    #[test]
    fn a_removed_guest_is_neither_leader_nor_follower() {
        let mut correlations = observed(10, |_| true);
        correlations.forget(B);
        assert_eq!(followers(&correlations, A), []);
        let mut correlations = observed(10, |_| true);
        correlations.forget(A);
        assert_eq!(
            (followers(&correlations, A), correlations.leaders.len(), correlations.recent.len()),
            (vec![], 0, 0)
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlations = Correlations::new();
        for n in 0..5_000u32 {
            correlations.wrote(n, ms(u64::from(n)));
            for other in 0..20 {
                correlations.woke(10_000 + other, ms(u64::from(n)));
            }
        }
        assert_eq!((correlations.leaders.len(), correlations.recent.len()), (MAX_LEADERS, MAX_OCCASIONS));
        assert!(correlations.leaders.values().all(|leader| leader.followers.len() <= MAX_FOLLOWERS));
        assert!(correlations.leaders.contains_key(&4_999) && !correlations.leaders.contains_key(&0));
    }

    #[test]
    fn times_that_go_back_are_harmless() {
        let mut correlations = Correlations::new();
        for n in (0..100u64).rev() {
            correlations.wrote(A, ms(n * 60_000));
            correlations.woke(B, Duration::ZERO);
            correlations.woke(B, Duration::MAX);
        }
        assert_eq!(followers(&correlations, B), []);
    }
}
