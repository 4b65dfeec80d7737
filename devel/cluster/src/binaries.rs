//! The control plane's programs, built from their Go modules when they are missing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::Progress;

/// Part of the program, so that the program needs no checkout beside it and is rebuilt when the modules change.
const MODULE: [(&str, &str); 2] =
    [("go.mod", include_str!("../../controlplane/go.mod")), ("go.sum", include_str!("../../controlplane/go.sum"))];

const PROGRAMS: [(&str, &str); 4] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
];

/// Without the version the API server reports v0.0.0, and clients that look at it switch features off.
const LINKER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// The control plane's programs could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no place for the control plane's programs: set `XDG_CACHE_HOME` or `HOME`")]
    NoCacheDirectory,
    /// Go is not installed.
    #[error("`go` is missing; it builds the control plane. Install Go 1.26 or newer: https://go.dev/doc/install")]
    NoGo,
    /// A file operation in the cache failed.
    #[error("cannot use `{path}`: {source}; check rights and free space (the programs need 300 MB, their build 3 GB)")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The compiler failed. Worth a retry when the module proxy could not be reached.
    #[error("`go build {package}` failed:\n{output}")]
    Build {
        /// The Go package.
        package: &'static str,
        /// The compiler's messages.
        output: String,
    },
}

/// The directory with the programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Builds what is missing, which takes some minutes the first time. Other processes that want the same wait
    /// meanwhile.
    pub async fn ensure(progress: Progress) -> Result<Self, Error> {
        let binaries = Self { directory: cache_directory()?.join(format!("controlplane-{}", fingerprint())) };
        if binaries.missing().next().is_none() {
            return Ok(binaries);
        }
        fs::create_dir_all(&binaries.directory).map_err(file_error(&binaries.directory))?;
        let lock = binaries.directory.join("lock");
        let lock_file = File::create(&lock).map_err(file_error(&lock))?;
        if lock_file.try_lock().is_err() {
            let waiting = tokio::task::spawn_blocking(move || lock_file.lock().map(|()| lock_file));
            let taken = progress.during("waiting for another process that builds the control plane", waiting).await;
            let _lock_file = taken.map_err(io::Error::other).and_then(|locked| locked).map_err(file_error(&lock))?;
            binaries.build(progress).await?;
        } else {
            binaries.build(progress).await?;
            drop(lock_file);
        }
        Ok(binaries)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn missing(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        PROGRAMS.into_iter().filter(|(name, _)| !self.program(name).exists())
    }

    async fn build(&self, progress: Progress) -> Result<(), Error> {
        let module = self.directory.join("module");
        fs::create_dir_all(&module).map_err(file_error(&module))?;
        for (name, content) in MODULE {
            let path = module.join(name);
            fs::write(&path, content).map_err(file_error(&path))?;
        }
        let missing: Vec<_> = self.missing().collect();
        if !missing.is_empty() {
            progress
                .line(&format!("Building the control plane into {} (some minutes, once)", self.directory.display()));
        }
        for (name, package) in missing {
            progress.during(&format!("go build {name}"), self.build_program(&module, name, package)).await?;
        }
        Ok(())
    }

    async fn build_program(&self, module: &Path, name: &str, package: &'static str) -> Result<(), Error> {
        let finished = self.program(name);
        let unfinished = self.directory.join(format!("{name}.unfinished"));
        let output = Command::new("go")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", LINKER_FLAGS, "-o"])
            .arg(&unfinished)
            .arg(package)
            .current_dir(module)
            // GOWORK and GOFLAGS of the person who builds must not change what is built.
            .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off")])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoGo,
                _ => Error::File { path: "go".into(), source },
            })?;
        if !output.status.success() {
            return Err(Error::Build { package, output: String::from_utf8_lossy(&output.stderr).into_owned() });
        }
        // Renamed only when complete, so that an interrupted build is not taken for a program.
        fs::rename(&unfinished, &finished).map_err(file_error(&finished))
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

fn cache_directory() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|cache| cache.join("wasm-operator"))
        .ok_or(Error::NoCacheDirectory)
}

/// Changes with everything that changes the programs.
fn fingerprint() -> String {
    let mut hash = Sha256::new();
    for (_, content) in MODULE {
        hash.update(content);
    }
    hash.update(LINKER_FLAGS);
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reported_version_is_the_built_one() {
        let version = LINKER_FLAGS.split("gitVersion=").nth(1).unwrap().split(' ').next().unwrap();
        let (_, go_mod) = MODULE[0];
        assert!(go_mod.contains(&format!("k8s.io/kubernetes {version} ")), "{version}");
        let (major, minor) = version[1..].rsplit_once('.').unwrap().0.split_once('.').unwrap();
        assert!(
            LINKER_FLAGS.contains(&format!("gitMajor={major} "))
                && LINKER_FLAGS.ends_with(&format!("gitMinor={minor}"))
        );
    }
}
