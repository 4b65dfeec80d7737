//! What can go wrong, and who can mend it.

use std::io;
use std::path::PathBuf;

/// Why a directory cannot hold hibernated guests. The administrator can mend each of these; retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Cannot be made, opened, or read.
    #[error("cannot use `{}` for hibernated guests: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could reach what guests have in memory.
    #[error(
        "`{}` belongs to user {owner} with mode {mode:03o}: guests' memory is only written to a directory of the host's own user ({user}) with mode 700",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// User id of this process.
        user: u32,
    },
    /// Hibernating there would only move memory.
    #[error(
        "`{}` is on {filesystem}, which keeps files in memory: choose a directory on a disk (in a pod an `emptyDir` without `medium: Memory`)",
        path.display()
    )]
    InMemory {
        /// The directory.
        path: PathBuf,
        /// Such as `tmpfs`.
        filesystem: &'static str,
    },
    /// The kernel does not say which pages a guest has changed.
    #[error("cannot read `/proc/self/pagemap`, without which no guest can be hibernated: {0}")]
    Pagemap(#[source] io::Error),
    /// Only pages of 4 KiB are known here.
    #[error("this machine's pages have {0} bytes; hibernation knows pages of 4,096 bytes only")]
    PageBytes(usize),
}

/// Why a guest is still awake. Its memory is whole, unless [`HibernateError::is_fatal`].
#[derive(Debug, thiserror::Error)]
pub enum HibernateError {
    /// This guest is not to be hibernated.
    #[error("hibernation is off for this guest")]
    Off,
    /// It is running. Try again when it waits.
    #[error("the guest is running")]
    Busy,
    /// Something happened for it while it was written.
    #[error("the guest was needed before it was written")]
    Wanted,
    /// All guests together have as much on disk as they may. The administrator can raise the budget.
    #[error(
        "writing the guest takes {needed} bytes, and {used} of the {budget} bytes for hibernated guests are in use"
    )]
    Budget {
        /// Bytes that this guest would add.
        needed: u64,
        /// Bytes in use by all guests.
        used: u64,
        /// Bytes that all guests may use.
        budget: u64,
    },
    /// The disk is full or broken, the process has too many open files, and so on. The administrator can mend it; trying
    /// again later is right.
    #[error("cannot {operation} the guest's file for hibernation: {source}")]
    Io {
        /// What was tried, such as `write`.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel took the guest's memory away and did not map the file in its place. The guest must be dropped.
    #[error("the guest's memory is lost, because its file could not be mapped: {0}")]
    Lost(#[source] io::Error),
}

impl HibernateError {
    /// Whether the guest has to be dropped: it must not run any more.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// For `map_err`, of an operation such as `write`.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, source: source.into() }
    }
}
