//! The control plane's programs, built from their Go modules when they are missing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::Progress;

/// Programs that are built from one Go module.
struct Module {
    /// Of the directory in the cache, before the fingerprint.
    name: &'static str,
    /// Part of our program, so that it needs no checkout beside it and builds anew when the module changes.
    files: [(&'static str, &'static str); 2],
    /// Names and Go packages.
    programs: &'static [(&'static str, &'static str)],
    linker_flags: &'static str,
}

/// Without the version the API server reports v0.0.0, and clients that look at it switch features off.
const CONTROL_PLANE: Module = Module {
    name: "controlplane",
    files: [
        ("go.mod", include_str!("../../controlplane/go.mod")),
        ("go.sum", include_str!("../../controlplane/go.sum")),
    ],
    programs: &[
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ],
    linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
        -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
};

/// A module of its own: it requires other versions of Kubernetes' libraries.
const KWOK: Module = Module {
    name: "kwok",
    files: [("go.mod", include_str!("../../kwok/go.mod")), ("go.sum", include_str!("../../kwok/go.sum"))],
    programs: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")],
    linker_flags: "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=v0.7.0",
};

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
    #[error("cannot use `{path}`: {source}; check rights and free space (the programs need 370 MB, their build 3 GB)")]
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

/// The directory with the programs of a module.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// etcd and Kubernetes' own programs. Builds what is missing, which takes some minutes the first time. Other
    /// processes that want the same wait meanwhile.
    pub async fn control_plane(progress: Progress) -> Result<Self, Error> {
        Self::ensure(&CONTROL_PLANE, progress).await
    }

    /// kwok, which simulates nodes; as [`control_plane`](Self::control_plane).
    pub async fn kwok(progress: Progress) -> Result<Self, Error> {
        Self::ensure(&KWOK, progress).await
    }

    async fn ensure(module: &'static Module, progress: Progress) -> Result<Self, Error> {
        let directory = cache_directory()?.join(format!("{}-{}", module.name, module.fingerprint()));
        let binaries = Self { directory };
        if binaries.missing(module).next().is_none() {
            return Ok(binaries);
        }
        fs::create_dir_all(&binaries.directory).map_err(file_error(&binaries.directory))?;
        let lock = binaries.directory.join("lock");
        let lock_file = File::create(&lock).map_err(file_error(&lock))?;
        if lock_file.try_lock().is_err() {
            let waiting = tokio::task::spawn_blocking(move || lock_file.lock().map(|()| lock_file));
            let what = format!("waiting for another process that builds `{}`", module.name);
            let taken = progress.during(&what, waiting).await;
            let _lock_file = taken.map_err(io::Error::other).and_then(|locked| locked).map_err(file_error(&lock))?;
            binaries.build(module, progress).await?;
        } else {
            binaries.build(module, progress).await?;
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

    fn missing(&self, module: &Module) -> impl Iterator<Item = (&'static str, &'static str)> {
        module.programs.iter().copied().filter(|(name, _)| !self.program(name).exists())
    }

    async fn build(&self, module: &Module, progress: Progress) -> Result<(), Error> {
        let sources = self.directory.join("module");
        fs::create_dir_all(&sources).map_err(file_error(&sources))?;
        for (name, content) in module.files {
            let path = sources.join(name);
            fs::write(&path, content).map_err(file_error(&path))?;
        }
        let missing: Vec<_> = self.missing(module).collect();
        if !missing.is_empty() {
            progress.line(&format!("Building into {} (some minutes, once)", self.directory.display()));
        }
        for (name, package) in missing {
            let building = self.build_program(&sources, module.linker_flags, name, package);
            progress.during(&format!("go build {name}"), building).await?;
        }
        Ok(())
    }

    async fn build_program(
        &self,
        sources: &Path,
        linker_flags: &str,
        name: &str,
        package: &'static str,
    ) -> Result<(), Error> {
        let finished = self.program(name);
        let unfinished = self.directory.join(format!("{name}.unfinished"));
        let output = Command::new("go")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags, "-o"])
            .arg(&unfinished)
            .arg(package)
            .current_dir(sources)
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

impl Module {
    /// Changes with everything that changes the programs.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (_, content) in self.files {
            hash.update(content);
        }
        hash.update(self.linker_flags);
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reported_version_is_the_built_one() {
        let flags = CONTROL_PLANE.linker_flags;
        let version = flags.split("gitVersion=").nth(1).unwrap().split(' ').next().unwrap();
        let (_, go_mod) = CONTROL_PLANE.files[0];
        assert!(go_mod.contains(&format!("k8s.io/kubernetes {version} ")), "{version}");
        let (major, minor) = version[1..].rsplit_once('.').unwrap().0.split_once('.').unwrap();
        assert!(flags.contains(&format!("gitMajor={major} ")) && flags.ends_with(&format!("gitMinor={minor}")));

        let version = KWOK.linker_flags.rsplit_once('=').unwrap().1;
        let (_, go_mod) = KWOK.files[0];
        assert!(go_mod.contains(&format!("sigs.k8s.io/kwok {version} ")), "{version}");
    }
}
