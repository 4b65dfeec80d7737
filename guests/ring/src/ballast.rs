//! Memory that is there to be there.

/// What a page of memory is to the host's kernel.
const PAGE: usize = 4096;

/// `HEAP_MEM_SIZE` bytes, each page of which was written to.
#[derive(Debug)]
pub struct Ballast(Vec<u8>);

impl Ballast {
    /// From the text of `HEAP_MEM_SIZE`; none is no ballast.
    ///
    /// # Errors
    /// When the text is not a number of bytes.
    pub fn from_text(text: Option<&str>) -> Result<Self, String> {
        let text = text.map(str::trim).unwrap_or_default();
        let bytes = if text.is_empty() {
            0
        } else {
            text.parse().map_err(|_| format!("`HEAP_MEM_SIZE` must be a number of bytes, not `{text}`"))?
        };
        let mut memory = vec![0_u8; bytes];
        // Different pages, so that nothing merges or compresses them to nothing.
        for (number, page) in (1_usize..).zip(memory.chunks_mut(PAGE)) {
            for (byte, value) in page.iter_mut().zip(number.to_ne_bytes()) {
                *byte = value;
            }
        }
        Ok(Self(std::hint::black_box(memory)))
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_written() {
        let ballast = Ballast::from_text(Some("10000")).unwrap();

        assert_eq!(ballast.bytes(), 10_000);
        assert!(ballast.0.chunks(PAGE).all(|page| page.iter().any(|byte| *byte != 0)));
    }

    #[test]
    fn no_size_is_no_ballast_and_nonsense_is_refused() {
        assert_eq!(Ballast::from_text(None).unwrap().bytes(), 0);
        assert_eq!(Ballast::from_text(Some("")).unwrap().bytes(), 0);
        for text in ["-1", "90MB", "1e6", "0x10"] {
            assert!(Ballast::from_text(Some(text)).unwrap_err().contains(text));
        }
    }
}
