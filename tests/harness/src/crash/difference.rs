//! How two states differ, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// What of a value is shown.
const SHOWN_BYTES: usize = 300;

/// One line for each object or field that differs; empty when the states are equal.
pub fn difference(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> String {
    let mut lines = String::new();
    for (name, object) in expected {
        match found.get(name) {
            None => line(&mut lines, &format!("- {name} is missing: {}", short(object))),
            Some(other) => compare(&mut lines, name, object, other),
        }
    }
    for (name, object) in found.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        line(&mut lines, &format!("+ {name} is one too many: {}", short(object)));
    }
    lines
}

fn compare(lines: &mut String, place: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let place = format!("{place} .{key}");
                match found.get(key) {
                    None => line(lines, &format!("~ {place}: {} is missing", short(value))),
                    Some(other) => compare(lines, &place, value, other),
                }
            }
            for (key, value) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                line(lines, &format!("~ {place} .{key}: {} is new", short(value)));
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (value, other)) in expected.iter().zip(found).enumerate() {
                compare(lines, &format!("{place} [{index}]"), value, other);
            }
        }
        _ if expected == found => {}
        _ => line(lines, &format!("~ {place}: {} became {}", short(expected), short(found))),
    }
}

fn line(lines: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "    {text}");
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN_BYTES {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_has_a_line_with_its_place() {
        let state = |objects: &[(&str, Value)]| {
            objects.iter().map(|(name, object)| ((*name).to_owned(), object.clone())).collect::<BTreeMap<_, _>>()
        };
        let expected = state(&[("A/x", json!({ "data": { "n": "1", "list": [1, 2] } })), ("A/gone", json!({}))]);
        let found = state(&[("A/x", json!({ "data": { "n": "2", "list": [1, 3], "m": 0 } })), ("A/extra", json!({}))]);
        assert_eq!(
            difference(&expected, &found),
            "    - A/gone is missing: {}\n    ~ A/x .data .list [1]: 2 became 3\n    ~ A/x .data .n: \"1\" became \"2\"\n    \
             ~ A/x .data .m: 0 is new\n    + A/extra is one too many: {}\n"
        );
        assert_eq!(difference(&expected, &expected), "");
    }
}
