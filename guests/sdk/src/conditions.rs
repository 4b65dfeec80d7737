//! Status conditions: a map by type, in a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition that holds (`status: "True"`) or does not (`"False"`), as of now.
///
/// `type_` and `reason` are PascalCase words, `message` is for people. Set `observed_generation` from the object that
/// was looked at.
#[must_use]
pub fn condition(type_: &str, holds: bool, reason: &str, message: &str, observed_generation: Option<i64>) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: Time(Timestamp::now()),
    }
}

/// Puts `condition` in the place of the one of its type. The time of the last transition changes only with the status.
///
/// Returns whether anything changed, so that an unchanged status needs no write.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) -> bool {
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            let changed = *known != condition;
            *known = condition;
            changed
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// The condition of this type.
#[must_use]
pub fn get<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and holds.
#[must_use]
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Takes the condition of this type out. Returns whether there was one.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mut condition: Condition, seconds: i64) -> Condition {
        condition.last_transition_time = Time(Timestamp::from_second(seconds).unwrap());
        condition
    }

    #[test]
    fn the_transition_time_stays_while_the_status_stays() {
        let mut conditions = vec![at(condition("Ready", false, "Starting", "0 of 2", Some(1)), 10)];

        assert!(set(&mut conditions, at(condition("Ready", false, "Starting", "1 of 2", Some(2)), 20)));

        let ready = get(&conditions, "Ready").unwrap();
        assert_eq!(ready.last_transition_time.0.as_second(), 10);
        assert_eq!((ready.message.as_str(), ready.observed_generation), ("1 of 2", Some(2)));
    }

    #[test]
    fn the_transition_time_moves_with_the_status() {
        let mut conditions = vec![at(condition("Ready", false, "Starting", "", None), 10)];

        assert!(set(&mut conditions, at(condition("Ready", true, "Started", "", None), 20)));

        assert_eq!(get(&conditions, "Ready").unwrap().last_transition_time.0.as_second(), 20);
        assert!(holds(&conditions, "Ready"));
    }

    #[test]
    fn setting_the_same_condition_later_changes_nothing() {
        let mut conditions = vec![at(condition("Ready", true, "Started", "", Some(3)), 10)];
        let before = conditions.clone();

        assert!(!set(&mut conditions, at(condition("Ready", true, "Started", "", Some(3)), 99)));

        assert_eq!(conditions, before);
    }

    #[test]
    fn conditions_of_other_types_are_left_alone() {
        let mut conditions = vec![condition("Ready", true, "Started", "", None)];

        set(&mut conditions, condition("Degraded", false, "Fine", "", None));

        assert_eq!(conditions.len(), 2);
        assert!(!holds(&conditions, "Degraded"));
        assert!(!holds(&conditions, "Unknown"));
        assert!(remove(&mut conditions, "Degraded"));
        assert!(!remove(&mut conditions, "Degraded"));
        assert_eq!(conditions.len(), 1);
    }
}
