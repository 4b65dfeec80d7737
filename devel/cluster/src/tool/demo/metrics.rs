//! The metrics that the demos read, in the Prometheus text format.

use std::collections::BTreeMap;

const GUEST_STATE: &str = "wasm_operator_guest_state{";
const GUEST_WAKES: &str = "wasm_operator_guest_wakes_total{";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestState {
    pub(super) guest: String,
    pub(super) state: String,
}

impl GuestState {
    pub(super) fn is_asleep(&self) -> bool {
        matches!(self.state.as_str(), "dormant" | "cold")
    }
}

/// Each guest with the state whose value is 1, sorted as a person counts.
pub(super) fn guest_states(text: &str) -> Vec<GuestState> {
    let mut states: Vec<_> = text.lines().filter_map(parse).collect();
    states.sort_by(|a, b| (a.guest.len(), &a.guest).cmp(&(b.guest.len(), &b.guest)));
    states
}

/// How often a guest was woken, for whatever reason.
pub(super) fn wakes(text: &str, guest: &str) -> u64 {
    let of_guest = |line| sample(line, GUEST_WAKES).filter(|(labels, _)| labels.get("guest") == Some(&guest));
    text.lines().filter_map(of_guest).map(|(_, value)| value as u64).sum()
}

/// Labels and value of a line. Names of guests and states hold no quotes or commas.
fn sample<'a>(line: &'a str, name: &str) -> Option<(BTreeMap<&'a str, &'a str>, f64)> {
    let (labels, value) = line.strip_prefix(name)?.rsplit_once('}')?;
    let labels = labels.split(',').filter_map(|label| label.split_once('='));
    let labels = labels.map(|(name, value)| (name.trim(), value.trim_matches('"'))).collect();
    Some((labels, value.trim().parse().ok()?))
}

fn parse(line: &str) -> Option<GuestState> {
    let (mut labels, value) = sample(line, GUEST_STATE)?;
    if value != 1.0 {
        return None;
    }
    Some(GuestState { guest: labels.remove("guest")?.to_owned(), state: labels.remove("state")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_state_that_holds_counts() {
        let text = "# TYPE wasm_operator_guest_state gauge\n\
            wasm_operator_guest_state{guest=\"ring-10\",state=\"awake\"} 1\n\
            wasm_operator_guest_state{guest=\"ring-2\",state=\"awake\"} 0\n\
            wasm_operator_guest_state{state=\"dormant\",guest=\"ring-2\"} 1.0\n\
            wasm_operator_guest_wakes_total{guest=\"ring-2\",reason=\"event\"} 1\n\
            wasm_operator_guest_wakes_total{guest=\"ring-2\",reason=\"timer\"} 2\n";
        let states = guest_states(text);
        let names: Vec<_> = states.iter().map(|state| (state.guest.as_str(), state.is_asleep())).collect();
        assert_eq!(names, [("ring-2", true), ("ring-10", false)]);
        assert_eq!((wakes(text, "ring-2"), wakes(text, "ring-10")), (3, 0));
    }
}
