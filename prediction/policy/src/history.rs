//! The last gaps of a guest.

/// Gaps that are remembered one by one: enough for an autoregressive model of a small order.
pub(crate) const REMEMBERED: usize = 32;

/// A ring of gaps in seconds.
#[derive(Debug, Clone)]
pub(crate) struct History {
    gaps: [f32; REMEMBERED],
    /// Where the next gap goes, which is where the oldest is.
    next: u8,
    len: u8,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { gaps: [0.0; REMEMBERED], next: 0, len: 0 }
    }

    pub(crate) fn push(&mut self, gap: f64) {
        if let Some(slot) = self.gaps.get_mut(usize::from(self.next)) {
            *slot = gap as f32;
        }
        self.next = (self.next + 1) % REMEMBERED as u8;
        self.len = (self.len + 1).min(REMEMBERED as u8);
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// In seconds, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        let (newer, older) = self.gaps.split_at(usize::from(self.next).min(REMEMBERED));
        older.iter().chain(newer).skip(REMEMBERED - self.len()).map(|gap| f64::from(*gap))
    }

    /// In seconds, the newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = f64> + '_ {
        let (newer, older) = self.gaps.split_at(usize::from(self.next).min(REMEMBERED));
        newer.iter().rev().chain(older.iter().rev()).take(self.len()).map(|gap| f64::from(*gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gaps_are_forgotten() {
        let mut history = History::new();
        assert_eq!(history.iter().count(), 0);
        (0..3).for_each(|gap| history.push(f64::from(gap)));
        assert_eq!(history.iter().collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
        (3..40).for_each(|gap| history.push(f64::from(gap)));
        assert_eq!(history.iter().collect::<Vec<_>>(), (8..40).map(f64::from).collect::<Vec<_>>());
        assert_eq!(history.newest().take(3).collect::<Vec<_>>(), [39.0, 38.0, 37.0]);
    }
}
