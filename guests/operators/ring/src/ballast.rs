//! Memory that is there to be there.

use anyhow::Context as _;

/// What a page of memory is to the host's kernel.
const PAGE: usize = 4096;

/// `HEAP_MEM_SIZE` bytes, each page of which was written to.
pub(crate) struct Ballast {
    _bytes: Vec<u8>,
}

impl Ballast {
    /// From the text of `HEAP_MEM_SIZE`; none is no ballast.
    pub(crate) fn from_text(text: Option<&str>) -> anyhow::Result<Self> {
        let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("0");
        let bytes: usize =
            text.parse().with_context(|| format!("`HEAP_MEM_SIZE` must be a number of bytes, not `{text}`"))?;
        let mut memory = vec![0_u8; bytes];
        // Different pages, so that nothing merges or compresses them to nothing.
        for (number, page) in (1_usize..).zip(memory.chunks_mut(PAGE)) {
            for (byte, value) in page.iter_mut().zip(number.to_ne_bytes()) {
                *byte = value;
            }
        }
        Ok(Self { _bytes: std::hint::black_box(memory) })
    }
}
