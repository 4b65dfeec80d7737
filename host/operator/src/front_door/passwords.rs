//! Names and passwords of a listener's callers.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Names with passwords in one file: these are technical users of one old system, not people.
const MAX_PASSWORDS: usize = 64;
/// Bytes of the file.
const MAX_FILE: u64 = 64 << 10;

/// Why there are no passwords. Mended by the administrator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordsError {
    #[error("cannot read the passwords `{}`: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the passwords `{}` are not usable: {reason}; a line is `name:password`, at most {MAX_PASSWORDS} lines", .path.display()
    )]
    Malformed { path: PathBuf, reason: String },
}

/// What may follow `Basic`, as digests of one length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passwords(Vec<[u8; 32]>);

impl Passwords {
    /// Reads lines of `name:password`.
    pub(crate) fn read(path: &Path) -> Result<Self, PasswordsError> {
        let failed = |source| PasswordsError::Read { path: path.to_owned(), source };
        let malformed = |reason: String| PasswordsError::Malformed { path: path.to_owned(), reason };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
            return Err(malformed(format!("the file has more than {MAX_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut digests = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            match line.split_once(':') {
                Some((name, password)) if !name.is_empty() && !password.is_empty() => digests.push(digest(line)),
                _ => return Err(malformed(format!("line {number} has no name, no `:` or no password"))),
            }
        }
        if digests.is_empty() || digests.len() > MAX_PASSWORDS {
            return Err(malformed(format!("it has {} lines", digests.len())));
        }
        Ok(Self(digests))
    }

    /// Whether `name:password` is one of them. Takes the same time for every wrong one.
    pub(crate) fn admit(&self, credentials: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(credentials).into();
        let mut found = Choice::from(0);
        for known in &self.0 {
            found |= known.ct_eq(&given);
        }
        found.into()
    }
}

fn digest(line: &str) -> [u8; 32] {
    Sha256::digest(line.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Passwords, PasswordsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwords");
        std::fs::write(&path, text).unwrap();
        Passwords::read(&path)
    }

    #[test]
    fn name_and_password_belong_together() {
        let passwords = read("alice:se:cret\n\nbob:other\r\n").unwrap();
        assert!(passwords.admit(b"alice:se:cret") && passwords.admit(b"bob:other"));
        for wrong in ["alice:other", "bob:se:cret", "alice:se", "alice:", "alice", ":", "", "ALICE:se:cret"] {
            assert!(!passwords.admit(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_would_let_nobody_or_anybody_in_is_refused() {
        let many = "a:b\n".repeat(MAX_PASSWORDS + 1);
        for bad in ["", "\n", "alice", "alice:", ":secret", "alice:x\n:", many.as_str()] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("`name:password`") && !error.contains("secret"), "{error}");
        }
        assert!(matches!(Passwords::read(Path::new("/nonexistent")), Err(PasswordsError::Read { .. })));
    }
}
