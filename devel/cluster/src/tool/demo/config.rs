//! Which configuration the host reads.

use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::TempPath;

const CHECKED_IN: &str = "wasm_config.yaml";

pub(super) enum Config {
    /// That of the checkout.
    CheckedIn,
    /// Made for the purpose, gone with this value.
    Made(TempPath),
}

impl Config {
    pub(super) fn made(text: &str) -> Result<Self> {
        let file = tempfile::Builder::new()
            .prefix("wasm_config-")
            .suffix(".yaml")
            .tempfile()
            .context("cannot make a configuration file")?;
        let path = file.into_temp_path();
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self::Made(path))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::CheckedIn => Path::new(CHECKED_IN),
            Self::Made(path) => path,
        }
    }
}

/// The absolute path of a component: a configuration elsewhere has other relative ones.
pub(super) fn absolute(component: &str) -> Result<std::path::PathBuf> {
    std::path::absolute(component).context("no current directory")
}
