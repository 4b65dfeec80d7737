//! Words that a configuration may hold, checked where they are read so that a mistake has its position.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// So that `guest-<name>`, the default account, is a DNS label as well.
const MAX_GUEST_NAME: usize = 57;
/// The API server's own limit on field managers.
const MAX_FIELD_MANAGER: usize = 128;

/// Longest name of a caller or a group, in bytes.
const MAX_CALLER: usize = 253;

/// A DNS label: at most 63 of `a-z`, `0-9` and inner `-`.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS name: labels with dots between them, at most 253 bytes.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The closest DNS label, for a suggestion.
fn to_label(text: &str) -> String {
    let label: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_GUEST_NAME)
        .collect();
    label.trim_matches('-').to_owned()
}

pub(crate) fn guest_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.len() > MAX_GUEST_NAME {
        return Err(D::Error::custom(format!(
            "a guest's name has at most {MAX_GUEST_NAME} characters, this one has {}",
            name.len()
        )));
    }
    if is_label(&name) {
        return Ok(name);
    }
    let label = to_label(&name);
    let suggestion = if label.is_empty() { String::new() } else { format!(", such as `{label}`") };
    Err(D::Error::custom(format!(
        "`{name}` is not a guest's name: lower-case letters, digits and inner `-` only{suggestion}"
    )))
}

pub(crate) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(deserializer)?;
    if path.is_empty() || path.contains('\0') {
        return Err(D::Error::custom("the path of a `.wasm` file is expected"));
    }
    Ok(path.into())
}

pub(crate) fn variable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(D::Error::custom(format!(
            "`{name}` is not the name of an environment variable: it is empty or holds `=`"
        )));
    }
    Ok(name)
}

pub(crate) fn field_manager<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if name.is_empty() || name.len() > MAX_FIELD_MANAGER || !name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(D::Error::custom(format!(
            "a field manager has 1 to {MAX_FIELD_MANAGER} printable ASCII characters"
        )));
    }
    Ok(Some(name))
}

/// The name of a user or a group that the administrator makes up.
fn check_caller(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_CALLER || name.chars().any(char::is_control) {
        return Err(format!("the name of a user or a group has 1 to {MAX_CALLER} bytes without control characters"));
    }
    if name.starts_with("system:") {
        return Err(format!("`{name}` is a name of Kubernetes, which the callers of a listener cannot have"));
    }
    Ok(())
}

pub(crate) fn caller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_caller(&name).map_err(D::Error::custom)?;
    Ok(name)
}

pub(crate) fn callers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().try_for_each(|name| check_caller(name)).map_err(D::Error::custom)?;
    Ok(names)
}

pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("`{text}` is not an address with a port, such as `10.0.0.5:8443` or `[::]:8080`"))
    })
}
