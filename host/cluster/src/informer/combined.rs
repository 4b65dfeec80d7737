//! The streams of a subscription as its subscriber sees them: as one.

use std::sync::Arc;

use parking_lot::Mutex;
use wasm_operator_core::object::Change;

use super::{Subscriber, SubscriptionState};

/// Makes one state of those of several streams.
pub(crate) struct Combined {
    subscriber: Arc<dyn Subscriber>,
    states: Mutex<States>,
}

struct States {
    parts: Vec<SubscriptionState>,
    told: Option<SubscriptionState>,
}

impl Combined {
    /// A subscriber for each of so many streams.
    pub(crate) fn parts(subscriber: Arc<dyn Subscriber>, count: usize) -> impl Iterator<Item = Arc<dyn Subscriber>> {
        let states = States { parts: vec![SubscriptionState::Syncing; count], told: None };
        let combined = Arc::new(Self { subscriber, states: Mutex::new(states) });
        (0..count).map(move |index| Arc::new(Part { combined: combined.clone(), index }) as Arc<dyn Subscriber>)
    }

    fn update(&self, index: usize, state: &SubscriptionState) {
        let mut states = self.states.lock();
        let States { parts, told } = &mut *states;
        if let Some(part) = parts.get_mut(index) {
            *part = state.clone();
        }
        let now = combine(parts);
        if told.as_ref() != Some(&now) {
            // Under the lock, so that the last state that is told is the last one that there was.
            self.subscriber.state(&now);
            *told = Some(now);
        }
    }
}

/// The state of the whole: the worst of its parts, with objects when all of them have theirs.
fn combine(parts: &[SubscriptionState]) -> SubscriptionState {
    let has_objects = parts.iter().all(SubscriptionState::has_objects);
    let parked = parts.iter().find_map(|part| match part {
        SubscriptionState::Parked { reason, .. } => Some(*reason),
        _ => None,
    });
    match parked {
        Some(reason) => SubscriptionState::Parked { reason, has_objects },
        None if !has_objects => SubscriptionState::Syncing,
        None if parts.contains(&SubscriptionState::Restarting) => SubscriptionState::Restarting,
        None => SubscriptionState::Synced,
    }
}

struct Part {
    combined: Arc<Combined>,
    index: usize,
}

impl Subscriber for Part {
    fn changed(&self, change: &Change) {
        self.combined.subscriber.changed(change);
    }

    fn state(&self, state: &SubscriptionState) {
        self.combined.update(self.index, state);
    }

    fn history_lost(&self) {
        self.combined.subscriber.history_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::super::ParkReason;
    use super::*;

    #[test]
    fn the_whole_is_as_far_as_its_last_part() {
        use SubscriptionState::{Restarting, Synced, Syncing};
        let parked = |has_objects| SubscriptionState::Parked { reason: ParkReason::HostForbidden, has_objects };
        for (parts, whole) in [
            ([Synced, Synced], Synced),
            ([Synced, Syncing], Syncing),
            ([Restarting, Syncing], Syncing),
            ([Synced, Restarting], Restarting),
            ([parked(true), Synced], parked(true)),
            ([parked(true), Syncing], parked(false)),
            ([Restarting, parked(false)], parked(false)),
        ] {
            assert_eq!(combine(&parts), whole, "{parts:?}");
        }
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<SubscriptionState>>);

    impl Subscriber for Told {
        fn changed(&self, _: &Change) {}
        fn state(&self, state: &SubscriptionState) {
            self.0.lock().push(state.clone());
        }
        fn history_lost(&self) {}
    }

    #[test]
    fn the_same_state_is_told_once() {
        let told = Arc::new(Told::default());
        let parts: Vec<_> = Combined::parts(told.clone(), 2).collect();
        parts[0].state(&SubscriptionState::Syncing);
        parts[1].state(&SubscriptionState::Synced);
        parts[0].state(&SubscriptionState::Synced);
        parts[1].state(&SubscriptionState::Synced);
        assert_eq!(*told.0.lock(), [SubscriptionState::Syncing, SubscriptionState::Synced]);
    }
}
