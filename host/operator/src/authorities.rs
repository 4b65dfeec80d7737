//! The file of certificate authorities that vouch for a guest's other hosts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wasm_operator_cluster::gateway::{Authorities, InvalidAuthorities};
use wasm_operator_config::GuestSpec;

/// The most bytes of such a file: four times what all public authorities take.
const MAX_BYTES: u64 = 1 << 20;

/// The file cannot be used. The administrator has to change it, or the configuration.
#[derive(Debug, thiserror::Error)]
#[error("`certificateAuthorities`: `{}` cannot be used: {cause}", .path.display())]
pub(crate) struct AuthoritiesError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("it has more than {MAX_BYTES} bytes")]
    Size,
    #[error(transparent)]
    Content(#[from] InvalidAuthorities),
}

/// Reads what the guest's configuration names; None if it names nothing.
pub(crate) fn read(spec: &GuestSpec, directory: &Path) -> Result<Option<Authorities>, AuthoritiesError> {
    let Some(path) = spec.certificate_authorities_path(directory) else { return Ok(None) };
    match of_file(&path) {
        Ok(authorities) => Ok(Some(authorities)),
        Err(cause) => Err(AuthoritiesError { path, cause }),
    }
}

fn of_file(path: &Path) -> Result<Authorities, Cause> {
    let mut pem = Vec::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut pem)?;
    if read as u64 > MAX_BYTES { Err(Cause::Size) } else { Ok(Authorities::from_pem(&pem)?) }
}
