//! Answers that hold for a while.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::time::Instant;

/// At most so many answers; when there are more, those that have expired go, then all.
pub(crate) struct Cache<K, V> {
    answers: Mutex<HashMap<K, (V, Instant)>>,
    max: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(crate) fn new(max: usize) -> Self {
        Self { answers: Mutex::default(), max }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let answers = self.answers.lock();
        let (value, until) = answers.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V, until: Instant) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= self.max {
            answers.retain(|_, (_, until)| *until > now);
            if answers.len() >= self.max {
                answers.clear();
            }
        }
        answers.insert(key, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_expire_and_are_bounded_in_number() {
        let cache = Cache::new(2);
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        cache.insert(1, "one", after(1));
        cache.insert(2, "two", after(5));
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some("one"), Some("two"), None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&1), None);
        cache.insert(3, "three", after(5));
        assert_eq!((cache.get(&2), cache.get(&3)), (Some("two"), Some("three")));
        cache.insert(4, "four", after(5));
        assert_eq!(cache.answers.lock().len(), 1);
    }
}
