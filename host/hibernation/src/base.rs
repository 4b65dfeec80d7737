//! What guests of one component have in common: the image that each finds in its memory before it runs.
//!
//! wasmtime shares it by mapping it from the compiled file, which it can only do in memories that it made itself. Here each
//! instance copies its image, and gives the copies back for a mapping of one file that the component's first instance
//! wrote.

use crate::file::SparseFile;

/// Which component, and which of its memories, in the order in which they are made.
pub(crate) type Image = (String, usize);

/// The image in a file, which is not written to after this was made.
pub(crate) struct Base {
    pub(crate) file: SparseFile,
}
