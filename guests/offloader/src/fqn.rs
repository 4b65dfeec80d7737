//! Names of OpenWhisk's actions and triggers.

use std::fmt;

/// A name with its namespace and, for actions, perhaps a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifiedName {
    namespace: String,
    /// `name` or `package/name`.
    name: String,
}

/// A text that names nothing. Its author has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: write `name`, `package/name`, `/namespace/name` or `/namespace/package/name`")]
pub struct InvalidName(String);

impl QualifiedName {
    /// Reads a name; one without a leading slash is in the given namespace.
    ///
    /// # Errors
    /// When the text has empty or too many parts, or characters that a path cannot hold.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName(text.chars().take(128).collect());
        let (namespace, name) = match text.strip_prefix('/') {
            Some(rest) => rest.split_once('/').ok_or_else(invalid)?,
            None => (namespace, text),
        };
        let parts = || [namespace].into_iter().chain(name.split('/'));
        let is_part =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
        if parts().count() > 3 || !parts().all(is_part) {
            return Err(invalid());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The label value `ow_action`, before it is made valid: all parts joined by `_`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}_{}", self.namespace, self.name.replace('/', "_"))
    }

    /// Below `/api/v1/namespaces/`: `<namespace>/<collection>/<name>`, escaped.
    #[must_use]
    pub fn path(&self, collection: &str) -> String {
        format!("{}/{collection}/{}", escape(&self.namespace), escape(&self.name))
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.namespace, self.name)
    }
}

/// Percent-escapes what a path cannot hold; slashes stay.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'@' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_openwhisk_reads_them() {
        for (text, fqn, label) in [
            ("foo", "/_/foo", "__foo"),
            ("pkg/foo", "/_/pkg/foo", "__pkg_foo"),
            ("/ns/foo", "/ns/foo", "ns_foo"),
            ("/guest/5g-media/action_ping", "/guest/5g-media/action_ping", "guest_5g-media_action_ping"),
        ] {
            let name = QualifiedName::parse(text, "_").unwrap();
            assert_eq!((name.to_string().as_str(), name.label().as_str()), (fqn, label), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "/", "/ns", "/ns/", "//foo", "a//b", "/a/b/c/d", "a/b/c", "..", "/ns/../x", "a\nb"] {
            assert!(QualifiedName::parse(text, "_").is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_are_escaped() {
        let name = QualifiedName::parse("/a b/p/ö?", "_").unwrap();
        assert_eq!(name.path("actions"), "a%20b/actions/p/%C3%B6%3F");
    }
}
