//! Names that the API server accepts, from text that it would not.

use sha2::{Digest, Sha256};

/// The most bytes of a DNS label, and of a label value.
pub const MAX_LENGTH: usize = 63;

/// Hexadecimal digits of the hash in a name that had to be changed: 32 bits.
const HASH_DIGITS: usize = 8;

/// `text` as a DNS label (RFC 1123): lower-case letters, digits and inner hyphens, at most [`MAX_LENGTH`] bytes.
///
/// A text that is one already stays. Any other gets a hash of the original at its end, so that two different texts do
/// not become one name.
#[must_use]
pub fn dns_label(text: &str) -> String {
    sanitise(text, MAX_LENGTH, |character| match character {
        'a'..='z' | '0'..='9' | '-' => Some(character),
        'A'..='Z' => Some(character.to_ascii_lowercase()),
        _ => None,
    })
}

/// `text` as the value of a label: letters, digits and inner `-`, `_` and `.`, at most [`MAX_LENGTH`] bytes. Changed
/// texts get a hash, as in [`dns_label`]. The empty value is valid.
#[must_use]
pub fn label_value(text: &str) -> String {
    label_value_within(text, MAX_LENGTH)
}

/// [`label_value`] of at most `length` bytes, for one that is put behind a prefix. At least 10 are needed.
#[must_use]
pub fn label_value_within(text: &str, length: usize) -> String {
    if text.is_empty() {
        return String::new();
    }
    sanitise(text, length.clamp(HASH_DIGITS + 2, MAX_LENGTH), |character| {
        (character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')).then_some(character)
    })
}

/// The name of something that belongs to `owner`: `<owner>-<suffix>`, shortened with a hash if need be. A DNS label.
#[must_use]
pub fn child(owner: &str, suffix: &str) -> String {
    dns_label(&format!("{owner}-{suffix}"))
}

/// The first `digits` hexadecimal digits of the SHA-256 of `bytes`; there are 64.
#[must_use]
pub fn digest(bytes: impl AsRef<[u8]>, digits: usize) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(digits).map(hex).collect()
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

fn sanitise(text: &str, length: usize, keep: impl Fn(char) -> Option<char>) -> String {
    let clean: String = text.chars().map(|character| keep(character).unwrap_or('-')).collect();
    let clean = clean.trim_matches(|character: char| !character.is_ascii_alphanumeric());
    if clean == text && !text.is_empty() && text.len() <= length {
        return text.to_owned();
    }
    let prefix: String = clean.chars().take(length - HASH_DIGITS - 1).collect();
    let prefix = prefix.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
    let hash = digest(text, HASH_DIGITS);
    if prefix.is_empty() { format!("x{hash}") } else { format!("{prefix}-{hash}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dns_label(text: &str) -> bool {
        !text.is_empty()
            && text.len() <= MAX_LENGTH
            && text.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '-'))
            && !text.starts_with('-')
            && !text.ends_with('-')
    }

    #[test]
    fn valid_names_stay() {
        for name in ["a", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(dns_label(name), name);
        }
        for value in ["", "Web_1.2", "a"] {
            assert_eq!(label_value(value), value);
        }
    }

    #[test]
    fn everything_else_becomes_valid() {
        let long = "y".repeat(64);
        let tail = format!("{}-----tail", "z".repeat(50));
        for text in ["", "-", "Web", "a.b", "a/b", "-a-", "ä", "日本", "a b", &long, &tail, "\0", "🦀🦀🦀"] {
            assert!(is_dns_label(&dns_label(text)), "`{text}` became `{}`", dns_label(text));
            let value = label_value(text);
            assert!(value.len() <= MAX_LENGTH);
            assert!(!value.starts_with(['-', '.', '_']) && !value.ends_with(['-', '.', '_']), "`{text}`: `{value}`");
        }
    }

    #[test]
    fn a_value_fits_into_what_is_left_of_a_label() {
        for length in [10, 58, 63] {
            let value = label_value_within(&"x".repeat(100), length);
            assert_eq!(value.len(), length);
        }
        assert_eq!(label_value_within("short", 58), "short");
        assert!(label_value_within("a b", 0).len() <= 10);
    }

    #[test]
    fn different_texts_become_different_names() {
        let names: std::collections::HashSet<String> =
            ["Web", "wEb", "web", "web-", "-web", "w.eb", "w/eb", ""].into_iter().map(dns_label).collect();
        assert_eq!(names.len(), 8);
        let long = "n".repeat(70);
        assert_ne!(child(&long, "a"), child(&long, "b"));
    }

    #[test]
    fn names_stay_the_same_between_versions() {
        // Children are found again by name: another name would orphan them.
        assert_eq!(child("hello", "copy"), "hello-copy");
        assert_eq!(dns_label("Web"), "web-29751047");
    }
}
