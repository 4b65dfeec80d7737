//! "Did you mean": the closest of the words that would have been right.

/// Words further away than a third of their length are not what was meant.
const PART_THAT_MAY_DIFFER: usize = 3;
/// Longer words than any of ours are not compared.
const MAX_LENGTH: usize = 64;

/// Case and separators are the most frequent slips: `service_account`, `Service-Account`.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The closest of `words`, if one is close.
pub(crate) fn closest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_LENGTH {
        return None;
    }
    let wanted = plain(word);
    words
        .into_iter()
        .map(|candidate| {
            let plain = plain(candidate);
            let distance = strsim::damerau_levenshtein(&wanted, &plain);
            // `env` for `environment`, `host` for `hosts`.
            let begins =
                wanted.len() >= 3 && plain.len() >= 3 && (plain.starts_with(&wanted) || wanted.starts_with(&plain));
            let limit = (plain.len().max(wanted.len()) / PART_THAT_MAY_DIFFER).max(1);
            (if begins { distance.min(1) } else { distance }, limit, candidate)
        })
        .filter(|(distance, limit, _)| distance <= limit)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 7] = ["name", "wasm", "env", "args", "permissions", "serviceAccount", "allowedHosts"];

    #[test]
    fn slips_find_what_was_meant() {
        for (word, meant) in [
            ("permisions", "permissions"),
            ("premissions", "permissions"),
            ("service_account", "serviceAccount"),
            ("ServiceAccount", "serviceAccount"),
            ("nmae", "name"),
            ("environment", "env"),
            ("wsam", "wasm"),
        ] {
            assert_eq!(closest(word, FIELDS), Some(meant), "{word}");
        }
    }

    #[test]
    fn other_words_find_nothing() {
        for word in ["", "x", "replicas", "image", "командa", &"n".repeat(100_000)] {
            assert_eq!(closest(word, FIELDS), None, "{word:.20}");
        }
    }
}
