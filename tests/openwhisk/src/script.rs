//! How answers are spoiled.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is done with one request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// The answer that OpenWhisk would give.
    Honest,
    /// An error in OpenWhisk's form; nothing takes effect.
    Status(u16),
    /// Any answer; nothing takes effect.
    Answer {
        /// The status.
        status: u16,
        /// Names and values.
        headers: Vec<(String, String)>,
        /// The body, as it is.
        body: String,
    },
    /// 200 with a page of HTML, as a proxy or a login page before OpenWhisk sends it.
    Garbage,
    /// 200 with a valid JSON object of at least so many bytes, sent as fast as it is read.
    Huge(u64),
    /// The headers and half of the honest body; then the connection is cut.
    Half,
    /// The connection is cut without an answer; nothing takes effect.
    Cut,
    /// What was asked for is done, and then the connection is cut: the caller cannot know.
    Lost,
    /// No answer as long as the caller waits; nothing takes effect.
    Silent,
    /// This much later, the other behaviour.
    After(Duration, Box<Behaviour>),
}

impl Behaviour {
    /// The honest answer, this much later.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        Self::After(delay, Box::new(Self::Honest))
    }
}

/// What to do with the requests of each line (`POST /path`).
#[derive(Debug, Default)]
pub(crate) struct Script {
    next: BTreeMap<String, VecDeque<Behaviour>>,
    always: BTreeMap<String, Behaviour>,
}

impl Script {
    /// For the next requests; later ones are answered honestly again.
    pub(crate) fn next(&mut self, line: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.next.entry(line.to_owned()).or_default().extend(behaviours);
    }

    /// For all requests that nothing else is said for.
    pub(crate) fn always(&mut self, line: &str, behaviour: Behaviour) {
        self.always.insert(line.to_owned(), behaviour);
    }

    pub(crate) fn take(&mut self, line: &str) -> Behaviour {
        let next = self.next.get_mut(line).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.get(line).cloned()).unwrap_or(Behaviour::Honest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_out_line_by_line() {
        let mut script = Script::default();
        script.next("POST /a", [Behaviour::Status(503), Behaviour::Cut]);
        script.always("POST /a", Behaviour::Garbage);
        assert!(matches!(script.take("POST /b"), Behaviour::Honest));
        assert!(matches!(script.take("POST /a"), Behaviour::Status(503)));
        assert!(matches!(script.take("POST /a"), Behaviour::Cut));
        assert!(matches!(script.take("POST /a"), Behaviour::Garbage));
        script.always("POST /a", Behaviour::Honest);
        assert!(matches!(script.take("POST /a"), Behaviour::Honest));
    }
}
