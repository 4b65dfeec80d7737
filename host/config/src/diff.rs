//! What changed between two configurations.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::GuestSpec;

/// One guest's change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "changes are few and do not live long")]
pub enum Change {
    /// A guest that was not there.
    Added(GuestSpec),
    /// A guest whose specification is another one.
    Changed {
        /// What it was.
        old: GuestSpec,
        /// What it is.
        new: GuestSpec,
    },
    /// A guest that is gone.
    Removed(GuestSpec),
}

/// The changes from `old` to `new`: removed guests first, so that what they held is free; then in the order of `new`.
/// Names are unique on either side.
#[must_use]
pub fn diff(old: &[GuestSpec], new: &[GuestSpec]) -> Vec<Change> {
    let before: BTreeMap<&str, &GuestSpec> = old.iter().map(|spec| (spec.name.as_str(), spec)).collect();
    let after: BTreeSet<&str> = new.iter().map(|spec| spec.name.as_str()).collect();
    let removed = old.iter().filter(|spec| !after.contains(spec.name.as_str())).cloned().map(Change::Removed);
    let rest = new.iter().filter_map(|spec| match before.get(spec.name.as_str()) {
        None => Some(Change::Added(spec.clone())),
        Some(same) if *same == spec => None,
        Some(other) => Some(Change::Changed { old: (*other).clone(), new: spec.clone() }),
    });
    removed.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(names: &[&str]) -> Vec<GuestSpec> {
        names.iter().map(|name| GuestSpec::new(*name, format!("{name}.wasm"))).collect()
    }

    #[test]
    fn order_is_no_change() {
        assert_eq!(diff(&guests(&["a", "b"]), &guests(&["b", "a"])), []);
        assert_eq!(diff(&[], &[]), []);
    }

    #[test]
    fn each_change_is_named_once() {
        let old = guests(&["a", "b", "c"]);
        let mut new = guests(&["d", "b", "c"]);
        new[1].suspend = true;
        let changes = diff(&old, &new);
        assert_eq!(
            changes,
            [
                Change::Removed(old[0].clone()),
                Change::Added(new[0].clone()),
                Change::Changed { old: old[1].clone(), new: new[1].clone() },
            ]
        );
    }
}
