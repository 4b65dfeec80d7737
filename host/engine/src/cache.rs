//! Compiled components and descriptions on disk.
//!
//! The host runs what is in here as native code, so the directory is its own. A compiled component is named
//! `<sha256 of the wasm>-<engine>.<sha256 of the file>.cwasm`: a file that is truncated or damaged does not match its name,
//! and one rename publishes both. Files are never written in place and only ever unlinked: they may be mapped, and a mapped
//! file that shrinks kills the host.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wasm_operator_core::description::Description;

use crate::component::GuestSettings;
use crate::contract::World;
use crate::error::EngineError;

/// Of files that are not finished. What a killed host left behind is removed at the next start.
const SCRATCH: &str = ".scratch-";
/// Scratch files younger than this may belong to another host on the same directory.
const SCRATCH_AGE: Duration = Duration::from_secs(3600);
/// A stored description. The gate against absurd answers is `describe` itself; this one is against a damaged file.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// A component on disk, compiled for this engine: a guest in the cold state holds this and nothing else. As long as one does, this
/// process does not evict the file. A handle: clones share everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    key: String,
    path: PathBuf,
    identity: Identity,
    world: World,
    /// None if it was found in the directory.
    compile_time: Option<Duration>,
}

/// Equal are those of one file, whoever made it.
impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.identity) == (&other.path, &other.identity)
    }
}

impl Eq for Compiled {}

/// What tells one file from another of the same name, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Artifact {
    /// SHA-256 of the component's `.wasm` in hexadecimal digits: the same digest is the same guest code.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.0.key.split('-').next().unwrap_or_default()
    }

    /// The world that it was compiled for.
    #[must_use]
    pub fn world(&self) -> World {
        self.0.world
    }

    /// The compiled file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.identity.bytes
    }

    /// How long it took this process to have it compiled; None if it was found in the cache.
    #[must_use]
    pub fn compile_time(&self) -> Option<Duration> {
        self.0.compile_time
    }

    /// Whether the file is the one whose checksum was compared.
    pub(crate) fn is_current(&self) -> bool {
        fs::metadata(&self.0.path).is_ok_and(|metadata| Identity::of(&metadata) == self.0.identity)
    }
}

/// The directory.
pub(crate) struct Cache {
    directory: PathBuf,
    max_bytes: u64,
    /// Something was added since the last eviction.
    has_grown: AtomicBool,
    /// What guests of this process use, by key.
    in_use: Mutex<HashMap<String, Weak<Compiled>>>,
}

/// A place for a file that is being made. Removed when dropped.
pub(crate) struct Scratch {
    file: PathBuf,
    _directory: TempDir,
}

impl Scratch {
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

impl Cache {
    pub(crate) fn open(directory: PathBuf, max_bytes: u64) -> Result<Self, EngineError> {
        let failed = |source| EngineError::CacheDirectory { path: directory.clone(), source };
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let metadata = fs::metadata(&directory).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(EngineError::CacheOwner { path: directory, owner: metadata.uid() });
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let cache = Self { directory, max_bytes, has_grown: AtomicBool::new(false), in_use: Mutex::default() };
        cache
            .remove_leftovers()
            .map_err(|source| EngineError::CacheDirectory { path: cache.directory.clone(), source })?;
        Ok(cache)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_scratch = entry.file_name().to_string_lossy().starts_with(SCRATCH);
            let is_old = || {
                let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
                modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > SCRATCH_AGE)
            };
            if is_scratch && is_old() {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                if let Err(error) = removed {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a leftover from the cache");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn scratch(&self) -> io::Result<Scratch> {
        let directory = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.directory)?;
        Ok(Scratch { file: directory.path().join("component.cwasm"), _directory: directory })
    }

    /// What a guest uses already and so was checked, unless its file is another one by now.
    pub(crate) fn used(&self, key: &str) -> Option<Artifact> {
        let used = self.in_use.lock().get(key).and_then(Weak::upgrade);
        used.map(Artifact).filter(Artifact::is_current)
    }

    fn artifact(
        &self,
        key: &str,
        path: PathBuf,
        file: &File,
        world: World,
        compile_time: Option<Duration>,
    ) -> io::Result<Artifact> {
        let identity = Identity::of(&file.metadata()?);
        let compiled = Arc::new(Compiled { key: key.to_owned(), path, identity, world, compile_time });
        let mut in_use = self.in_use.lock();
        in_use.retain(|_, compiled| compiled.strong_count() > 0);
        in_use.insert(key.to_owned(), Arc::downgrade(&compiled));
        Ok(Artifact(compiled))
    }

    /// Finds a whole compiled component. A damaged one is removed.
    pub(crate) fn look_up(&self, key: &str, world: World) -> io::Result<Option<Artifact>> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let checksum = name
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('.'))
                .and_then(|rest| rest.strip_suffix(".cwasm"));
            let Some(checksum) = checksum else { continue };
            let path = entry.path();
            let mut file = match File::open(&path) {
                Ok(file) => file,
                // Evicted by another host meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if hexadecimal_digest(&mut file)? == checksum {
                touch(&file)?;
                return self.artifact(key, path, &file, world, None).map(Some);
            }
            tracing::warn!(path = %path.display(), "a compiled component is damaged; it is compiled again");
            remove(&path)?;
        }
        Ok(None)
    }

    /// Publishes a finished file, which took so long to compile.
    pub(crate) fn insert(&self, key: &str, scratch: Scratch, world: World, took: Duration) -> io::Result<Artifact> {
        let mut file = File::open(scratch.file())?;
        let checksum = hexadecimal_digest(&mut file)?;
        // A file that was not written to the end before a power cut would be found damaged; one that shrinks while it is
        // mapped would kill the host.
        file.sync_all()?;
        let path = self.directory.join(format!("{key}.{checksum}.cwasm"));
        fs::rename(scratch.file(), &path)?;
        File::open(&self.directory)?.sync_all()?;
        self.has_grown.store(true, Ordering::Relaxed);
        self.artifact(key, path, &file, world, Some(took))
    }

    /// Whether something was added that an eviction has to make room for.
    pub(crate) fn has_grown(&self) -> bool {
        self.has_grown.load(Ordering::Relaxed)
    }

    /// Unlinks the least recently used files that no guest of this process uses, until the rest fits.
    pub(crate) fn evict(&self) {
        self.has_grown.store(false, Ordering::Relaxed);
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let in_use = self.in_use.lock();
        let is_used = |path: &Path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let key = name.split('.').next().unwrap_or_default();
            in_use.get(key).is_some_and(|compiled| compiled.strong_count() > 0)
        };
        let mut files: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .filter(|(_, metadata)| metadata.is_file())
            .map(|(path, metadata)| {
                (metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH), metadata.blocks() * 512, path)
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files.iter().filter(|(_, _, path)| !is_used(path)) {
            if total <= self.max_bytes {
                break;
            }
            match remove(path) {
                Ok(()) => total = total.saturating_sub(*bytes),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot evict from the cache"),
            }
        }
    }

    pub(crate) fn description(&self, artifact: &Artifact, settings: &GuestSettings) -> Option<Description> {
        let file = File::open(self.description_path(artifact, settings)).ok()?;
        touch(&file).ok()?;
        let mut text = Vec::new();
        file.take(MAX_DESCRIPTION_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(crate) fn store_description(
        &self,
        artifact: &Artifact,
        settings: &GuestSettings,
        description: &Description,
    ) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(SCRATCH).tempfile_in(&self.directory)?;
        file.write_all(&serde_json::to_vec(description)?)?;
        file.as_file().sync_all()?;
        file.persist(self.description_path(artifact, settings))?;
        Ok(())
    }

    fn description_path(&self, artifact: &Artifact, settings: &GuestSettings) -> PathBuf {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            // With lengths, so that no two lists of texts are the same bytes.
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(text);
        };
        add(crate::contract::SERVED);
        add(&settings.env.len().to_string());
        for (name, value) in &settings.env {
            add(name);
            add(value);
        }
        settings.args.iter().for_each(|argument| add(argument));
        self.directory.join(format!("{}.{}.json", artifact.0.key, hexadecimal(&hash.finalize())))
    }
}

/// The time of the last access decides what is evicted. The time of the last change stays: it tells a file from another.
fn touch(file: &File) -> io::Result<()> {
    file.set_times(FileTimes::new().set_accessed(SystemTime::now()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(crate) fn hexadecimal_digest(source: &mut impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(source, &mut hash)?;
    Ok(hexadecimal(&hash.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
