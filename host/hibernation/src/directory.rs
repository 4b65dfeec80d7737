//! The directory for hibernated guests, and what all of them share.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::fstatfs;
use rustix::param::page_size;
use rustix::process::geteuid;

use crate::PAGE_BYTES;
use crate::base::{Base, Image};
use crate::budget::Budget;
use crate::error::{HibernateError, OpenError};
use crate::memories::Memories;
use crate::pagemap::Pagemap;

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const OVERLAY: i64 = 0x794c_7630;
/// How the names begin of files that are made with a name, where the file system knows no others. Normally they lose it at
/// once; a host that was killed in between leaves one.
const NAMED: &str = ".tmp";

/// Where guests are written to, and how much of them. A handle: clones share everything.
#[derive(Clone)]
pub struct Hibernation(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    directory: PathBuf,
    /// Files here are those of another file system, see `SparseFile::sync`.
    pub(crate) is_overlay: bool,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pagemap: Pagemap,
    /// Images of components, as long as a guest shares one.
    bases: Mutex<HashMap<Image, Weak<Base>>>,
}

impl Hibernation {
    /// Checks the directory and makes it if it is missing (mode 700). At most `budget_bytes` of it are used.
    pub fn open(directory: &Path, budget_bytes: u64) -> Result<Self, OpenError> {
        if page_size() != PAGE_BYTES {
            return Err(OpenError::PageBytes(page_size()));
        }
        let is_overlay = prepare(directory)? == OVERLAY;
        let pagemap = Pagemap::open().map_err(OpenError::Pagemap)?;
        let (directory, budget) = (directory.to_owned(), Budget::new(budget_bytes));
        Ok(Self(Arc::new(Inner { directory, is_overlay, budget, pagemap, bases: Mutex::default() })))
    }

    /// For the memories of one guest.
    #[must_use]
    pub fn memories(&self) -> Memories {
        Memories::new(Some(self.clone()))
    }

    /// Bytes on disk, over all guests and the images that they share.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.0.budget.used()
    }
}

impl Inner {
    /// A file without a name, mode 600.
    pub(crate) fn unlinked_file(&self) -> io::Result<File> {
        let file = tempfile::tempfile_in(&self.directory)?;
        // A file that never had a name comes with the mode that the umask leaves.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// The image of a component, made by the first guest that asks for it.
    pub(crate) fn base(
        &self,
        image: Image,
        make: impl FnOnce() -> Result<Base, HibernateError>,
    ) -> Result<Arc<Base>, HibernateError> {
        let known = |bases: &HashMap<Image, Weak<Base>>| bases.get(&image).and_then(Weak::upgrade);
        if let Some(base) = known(&self.bases.lock()) {
            return Ok(base);
        }
        // Not under the lock, since it waits for the disk.
        let made = Arc::new(make()?);
        let mut bases = self.bases.lock();
        bases.retain(|_, base| base.strong_count() > 0);
        if let Some(base) = known(&bases) {
            return Ok(base);
        }
        bases.insert(image, Arc::downgrade(&made));
        Ok(made)
    }
}

/// Returns the type of the directory's file system.
fn prepare(path: &Path) -> Result<i64, OpenError> {
    let failed = |source: io::Error| OpenError::Directory { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let directory = File::open(path).map_err(failed)?;
    let metadata = directory.metadata().map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let (owner, mode, user) = (metadata.uid(), metadata.mode() & 0o777, geteuid().as_raw());
    if owner != user || mode != 0o700 {
        return Err(OpenError::NotOurs { path: path.to_owned(), owner, mode, user });
    }
    let in_memory = |filesystem| OpenError::InMemory { path: path.to_owned(), filesystem };
    let filesystem = fstatfs(&directory).map_err(|error| failed(error.into()))?.f_type;
    match filesystem {
        TMPFS => return Err(in_memory("tmpfs")),
        RAMFS => return Err(in_memory("ramfs")),
        OVERLAY if !extents::are_known(&tempfile::tempfile_in(path).map_err(failed)?) => {
            return Err(in_memory("an overlay of a tmpfs"));
        }
        _ => {}
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(NAMED.as_bytes()) {
            // Another host may just have removed its own.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(filesystem)
}

/// Whether a file has a place on a disk. An overlay hides the file system below it, and passes this question on.
mod extents {
    use std::fs::File;

    use rustix::ioctl::{Updater, ioctl, opcode};

    /// `struct fiemap` of `linux/fiemap.h`, without room for extents: the kernel then only counts them.
    #[repr(C)]
    #[derive(Default)]
    struct Fiemap {
        start: u64,
        length: u64,
        flags: u32,
        mapped_extents: u32,
        extent_count: u32,
        reserved: u32,
    }

    /// `FS_IOC_FIEMAP`
    const QUESTION: u32 = opcode::read_write::<Fiemap>(b'f', 11);

    #[allow(unsafe_code)]
    pub(super) fn are_known(file: &File) -> bool {
        let mut all = Fiemap { length: u64::MAX, ..Fiemap::default() };
        // SAFETY: this operation reads and writes a `struct fiemap`, and nothing behind it if there is no room for extents.
        unsafe { ioctl(file, Updater::<QUESTION, _>::new(&mut all)) }.is_ok()
    }
}
