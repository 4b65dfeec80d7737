//! Components that differ in a string of their data, so that no two guests can share anything.
//!
//! The reference compiled a string of its own into each guest. The Rust standard library leaves strings in the data segments
//! of every program: the paths of its sources, `/rustc/<40 hexadecimal digits>/library/...`, which panics name. Writing
//! other digits into one of them is what the compiler would have done with another string of that length. The digest of the
//! component, the digest of the core module inside it and the compiled file all differ; nothing else does.

use std::ops::Range;
use std::path::{Path, PathBuf};

use harness::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};

const PREFIX: &[u8] = b"/rustc/";
const DIGITS: usize = 40;

/// Writes `count` variations of `component` into `directory` and returns their paths.
pub(crate) fn write(component: &Path, directory: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let bytes = std::fs::read(component).with_context(|| format!("cannot read `{}`", component.display()))?;
    let place = place(&bytes).with_context(|| format!("`{}`", component.display()))?;
    std::fs::create_dir_all(directory)?;
    (0..count)
        .map(|number| {
            let path = directory.join(format!("ring-{number}.wasm"));
            std::fs::write(&path, marked(&bytes, &place, number)?)?;
            Ok(path)
        })
        .collect()
}

/// SHA-256 of a file in hexadecimal digits, by which the host names what it has compiled.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(hexadecimal(&bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn marked(component: &[u8], place: &Range<usize>, number: usize) -> Result<Vec<u8>> {
    let digits = hexadecimal(&number.to_le_bytes());
    let mut copy = component.to_vec();
    let target = copy.get_mut(place.clone()).context("a place outside of the component")?;
    target.copy_from_slice(digits.as_bytes().get(..DIGITS).context("a short digest")?);
    Ok(copy)
}

/// Where the digits of the first such path are in a data segment.
fn place(component: &[u8]) -> Result<Range<usize>> {
    for payload in Parser::new(0).parse_all(component) {
        let Payload::DataSection(segments) = payload.context("not a WebAssembly component")? else { continue };
        for segment in segments {
            let segment = segment.context("a malformed data segment")?;
            if let Some(at) = digits_in(segment.data) {
                let start = segment.range.end - segment.data.len() + at;
                return Ok(start..start + DIGITS);
            }
        }
    }
    ensure!(false, "no data segment holds a path of the Rust standard library (`/rustc/...`) to make it distinct by");
    Ok(0..0)
}

fn digits_in(data: &[u8]) -> Option<usize> {
    let starts = data.windows(PREFIX.len() + DIGITS + 1).enumerate().filter(|(_, window)| window.starts_with(PREFIX));
    let mut whole = starts.filter(|(_, window)| {
        let digits = window.get(PREFIX.len()..).and_then(|rest| rest.split_last());
        digits.is_some_and(|(end, digits)| *end == b'/' && digits.iter().all(u8::is_ascii_hexdigit))
    });
    whole.next().map(|(at, _)| at + PREFIX.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core module with a custom section and one data segment of this content.
    fn module(data: &[u8]) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        let custom = [&[4][..], b"name", data].concat();
        let memory = [1, 0, 1];
        let segment = [&[1, 1, u8::try_from(data.len()).unwrap()][..], data].concat();
        for (id, content) in [(0, &custom[..]), (5, &memory[..]), (11, &segment[..])] {
            module.push(id);
            module.push(u8::try_from(content.len()).unwrap());
            module.extend_from_slice(content);
        }
        module
    }

    fn path() -> Vec<u8> {
        [b"x /rustc/short/ ", &b"/rustc/"[..], &[b'a'; DIGITS], b"/library/core"].concat()
    }

    #[test]
    fn copies_differ_in_the_data_segment_only() {
        let module = module(&path());
        let place = place(&module).unwrap();
        let copies: Vec<_> = (0..3).map(|number| marked(&module, &place, number).unwrap()).collect();

        assert_ne!(copies[0], copies[1]);
        assert_ne!(copies[1], copies[2]);
        let data_starts = module.len() - path().len();
        for copy in &copies {
            assert_eq!(copy.len(), module.len());
            assert_eq!(copy[..data_starts], module[..data_starts], "the custom section holds the same text");
            assert!(copy.ends_with(b"/library/core"));
            for payload in Parser::new(0).parse_all(copy) {
                payload.unwrap();
            }
        }
    }

    #[test]
    fn what_has_no_such_text_is_refused() {
        for (bytes, why) in [
            (module(b"/rustc/0123/library"), "no data segment"),
            (b"not wasm".to_vec(), "not a WebAssembly component"),
            (Vec::new(), "not a WebAssembly component"),
        ] {
            assert!(format!("{:#}", place(&bytes).unwrap_err()).contains(why));
        }
    }

    #[test]
    fn files_are_written_with_digests_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let component = directory.path().join("ring.wasm");
        std::fs::write(&component, module(&path())).unwrap();

        let written = write(&component, &directory.path().join("distinct"), 3).unwrap();

        let mut digests: Vec<_> = written.iter().map(|path| digest(path).unwrap()).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 3);
    }
}
