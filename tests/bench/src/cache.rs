//! What is kept from run to run, because a thousand components take minutes to compile.

use std::path::{Path, PathBuf};

use harness::{Context as _, Result, target};

use crate::distinct::digest;

/// Hexadecimal digits of a digest that tell components apart.
const SHORT: usize = 12;

/// Compiled components. The host keeps this directory below a limit of its own.
pub(crate) fn compiled() -> Result<PathBuf> {
    let directory = target()?.join("bench-cache");
    std::fs::create_dir_all(&directory)?;
    Ok(directory.join("compiled"))
}

/// A directory for the variations of a component. Those of others are removed.
pub(crate) fn distinct(component: &Path) -> Result<PathBuf> {
    let parent = target()?.join("bench-cache/distinct");
    let digest = digest(component)?;
    let name = digest.get(..SHORT).context("a short digest")?;
    std::fs::create_dir_all(&parent)?;
    for entry in std::fs::read_dir(&parent)?.flatten() {
        if entry.file_name() != name {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(parent.join(name))
}
