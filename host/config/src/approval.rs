//! What `as-requested` was bound to when a guest first got its permissions, kept in the state directory across restarts.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wasm_operator_core::permission::Rule;

use crate::names::is_label;

/// A kept approval; a description has far less.
const MAX_BYTES: u64 = 1 << 20;

/// A component, and the rules that it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// SHA-256 of the component in hexadecimal digits.
    pub digest: String,
    /// What it asked for and got.
    pub rules: Vec<Rule>,
}

/// An approval cannot be read or written. Mended by whoever runs the host.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The directory or a file in it.
    #[error("cannot use `{}` in the state directory: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was changed by hand or damaged. Taking it for missing would approve whatever comes next.
    #[error("`{}` is damaged: {message}; delete it to approve the component anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A mistake of the caller.
    #[error("`{0}` is not a guest's name")]
    Name(String),
}

/// The approvals of all guests: one small file each.
#[derive(Debug, Clone)]
pub struct Approvals {
    directory: PathBuf,
}

impl Approvals {
    /// Uses (and makes, mode 0700) the directory `approvals` in the state directory.
    pub fn open(state_directory: &Path) -> Result<Self, ApprovalError> {
        let directory = state_directory.join("approvals");
        let failed = |source| ApprovalError::File { path: directory.clone(), source };
        fs::create_dir_all(state_directory).map_err(failed)?;
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Who can write here grants permissions.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self { directory })
    }

    fn path(&self, guest: &str) -> Result<PathBuf, ApprovalError> {
        if is_label(guest) {
            Ok(self.directory.join(format!("{guest}.json")))
        } else {
            Err(ApprovalError::Name(guest.to_owned()))
        }
    }

    /// What was kept for a guest.
    pub fn get(&self, guest: &str) -> Result<Option<Approval>, ApprovalError> {
        let path = self.path(guest)?;
        let mut text = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ApprovalError::File { path, source }),
            Ok(_) => {}
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| ApprovalError::Damaged { path, message: error.to_string() })
    }

    /// Keeps an approval; it is on disk when this returns.
    pub fn keep(&self, guest: &str, approval: &Approval) -> Result<(), ApprovalError> {
        let path = self.path(guest)?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            serde_json::to_writer(&mut file, approval)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| ApprovalError::File { path: path.clone(), source })
    }

    /// Forgets a guest that was removed from the configuration.
    pub fn forget(&self, guest: &str) -> Result<(), ApprovalError> {
        let path = self.path(guest)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ApprovalError::File { path, source }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(digest: &str) -> Approval {
        Approval { digest: digest.into(), rules: vec![] }
    }

    #[test]
    fn an_approval_survives_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(&state.path().join("new")).unwrap();
        assert_eq!(approvals.get("ring").unwrap(), None);
        approvals.keep("ring", &approval("aa")).unwrap();
        approvals.keep("ring", &approval("bb")).unwrap();
        let again = Approvals::open(&state.path().join("new")).unwrap();
        assert_eq!(again.get("ring").unwrap(), Some(approval("bb")));
        again.forget("ring").unwrap();
        again.forget("ring").unwrap();
        assert_eq!(again.get("ring").unwrap(), None);
    }

    #[test]
    fn a_damaged_approval_is_not_a_missing_one() {
        let state = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(state.path()).unwrap();
        fs::write(state.path().join("approvals/ring.json"), "{\"digest\":").unwrap();
        let error = approvals.get("ring").unwrap_err();
        assert!(matches!(error, ApprovalError::Damaged { .. }), "{error}");
    }

    #[test]
    fn names_do_not_leave_the_directory() {
        let state = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(state.path()).unwrap();
        for name in ["../x", "a/b", "", ".", "A"] {
            assert!(matches!(approvals.keep(name, &approval("aa")), Err(ApprovalError::Name(_))), "{name}");
        }
    }

    #[test]
    fn others_cannot_write_approvals() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("approvals")).unwrap();
        fs::set_permissions(state.path().join("approvals"), fs::Permissions::from_mode(0o777)).unwrap();
        Approvals::open(state.path()).unwrap();
        let mode = fs::metadata(state.path().join("approvals")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
