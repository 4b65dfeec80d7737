//! Hibernation of guests in place: their linear memories go to disk while they themselves stay as they are.
//!
//! [`configure`] lets this crate make the memories of an engine. Each guest has a [`Memories`], and is instantiated and
//! polled inside of [`Memories::exclusive`], so that it never runs while its memory is written. [`Memories::hibernate`]
//! writes what the guest changed to an unlinked sparse file and maps that file over the memory: the same bytes at the same
//! addresses, read back page by page when they are touched. So there is nothing to do for a wake, and a wake that is
//! forgotten cannot corrupt anything.
//!
//! What wasmtime keeps of an instance besides its memory can follow ([`Memories::hibernate_contexts`]), in a process whose
//! allocator is [`Allocator`].
//!
//! Guests of one component can share what they have in common ([`Memories::share`]), and the pages that the last wake
//! touched can be read ahead ([`Memories::prefetch`]).
//!
//! The bytes of a guest, its secrets included, reach the disk: in files without a name that only this process can
//! open, and that the kernel frees when the process ends, however it ends.

mod base;
mod budget;
mod contexts;
mod creator;
mod directory;
mod error;
mod file;
mod memories;
mod memory;
mod pagemap;
mod plan;
mod region;
mod runs;
mod turn;

pub use contexts::{Allocator, Instantiation, guest_runs};
pub use creator::configure;
pub use directory::Hibernation;
pub use error::{HibernateError, OpenError};
pub use memories::{Memories, Report, Resident};
pub use turn::{Exclusive, InTurn};

/// The size of a page on x86-64, which the files and the kernel's page map are counted in.
const PAGE_BYTES: usize = 4 << 10;
