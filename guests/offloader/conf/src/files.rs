//! One file per entry.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The longest name of an entry: what file systems take.
const MAX_NAME: usize = 253;

/// The directory that the action reads.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller has to choose another name.
    #[error("`{0}` is not a name: use letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// The volume is full, or not writable. Worth another attempt.
    #[error("cannot write `{name}`: {source}")]
    Write {
        /// The entry.
        name: String,
        /// What was seen.
        source: io::Error,
    },
}

impl Files {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes a whole file: who reads it sees the old content or the new one.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let is_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(is_character) {
            return Err(Error::Name(name.chars().take(64).collect()));
        }
        let failed = |source| Error::Write { name: name.to_owned(), source };
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).map_err(failed)?;
        file.write_all(content.as_bytes()).map_err(failed)?;
        allow_everybody_to_read(file.path()).map_err(failed)?;
        file.persist(self.directory.join(name)).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Copies what a ConfigMap holds. A directory that is not there holds nothing.
    pub(crate) fn copy_from(&self, initial: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(initial) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            // The kubelet's own links begin with two dots.
            let Some(name) = entry.file_name().to_str().map(str::to_owned).filter(|name| !name.starts_with(".."))
            else {
                continue;
            };
            std::fs::copy(entry.path(), self.directory.join(name))?;
        }
        Ok(())
    }
}

/// The action may run as another user.
fn allow_everybody_to_read(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}
