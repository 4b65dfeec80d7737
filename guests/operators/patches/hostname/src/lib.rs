//! Stands in for the crate `hostname`, of which kube-runtime calls `get` to name who writes Events.

use std::ffi::OsString;
use std::io;

/// The name of this machine as the environment gives it.
///
/// # Errors
/// When the variable `HOSTNAME` is not set, as in a guest whose configuration does not set it.
pub fn get() -> io::Result<OsString> {
    std::env::var_os("HOSTNAME").ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}
