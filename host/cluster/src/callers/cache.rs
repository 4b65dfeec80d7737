//! Answers that hold for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// At most so many answers; when there are more, those that have expired go, then all.
pub(super) struct Cache<K, V> {
    answers: Mutex<HashMap<K, (V, Instant)>>,
    max: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self { answers: Mutex::default(), max }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let answers = self.answers.lock();
        let (value, until) = answers.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    pub(super) fn insert(&self, key: K, value: V, lifetime: Duration) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= self.max {
            answers.retain(|_, (_, until)| *until > now);
            if answers.len() >= self.max {
                answers.clear();
            }
        }
        answers.insert(key, (value, now + lifetime));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_expire_and_are_bounded_in_number() {
        let cache = Cache::new(2);
        cache.insert(1, "one", Duration::from_secs(1));
        cache.insert(2, "two", Duration::from_secs(5));
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some("one"), Some("two"), None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&1), None);
        cache.insert(3, "three", Duration::from_secs(5));
        assert_eq!((cache.get(&2), cache.get(&3)), (Some("two"), Some("three")));
        cache.insert(4, "four", Duration::from_secs(5));
        assert_eq!(cache.answers.lock().len(), 1);
    }
}
