//! What a file is that should be a component: told from its first bytes and the lengths of its sections, so that a person
//! gets one sentence and not the words of a parser.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use wasmparser::{BinaryReader, ComponentExportSectionReader};

/// `\0asm`
const MAGIC: [u8; 4] = *b"\0asm";
/// The magic number, then a version and a layer of two bytes each.
const HEADER_BYTES: u64 = 8;
/// The binary version of components. It changes until components are a standard.
const COMPONENT_VERSION: u16 = 13;
const COMPONENT_LAYER: u16 = 1;
const MODULE_LAYER: u16 = 0;
/// Bytes of the file that are looked at to tell text from the rest.
const LOOKED_AT: u64 = 512;
/// Sections that are followed. A component has some hundred at most; what has more is for the compiler to judge.
const MAX_SECTIONS: usize = 10_000;
/// An id, and a length in LEB128 of at most five bytes.
const SECTION_HEAD_BYTES: u64 = 6;
/// The id of a component's section of exports.
const EXPORT_SECTION: u8 = 11;
/// Bytes of such a section that are read; one with a name per interface of WASI has some thousand.
const MAX_EXPORT_BYTES: u64 = 64 << 10;
/// Exports that are looked at.
const MAX_EXPORTS: usize = 1_000;

/// A file is no component. Mended by whoever named or made the file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a WebAssembly component: {found}", .path.display())]
pub struct NotAComponent {
    /// The file.
    pub path: PathBuf,
    /// What it seems to be.
    pub found: Found,
}

/// What a file that is no component seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has no bytes.
    Empty,
    /// A module that is not wrapped.
    CoreModule,
    /// The beginning of WebAssembly.
    Truncated {
        /// Its length in bytes.
        bytes: u64,
    },
    /// A component of another binary version.
    OtherVersion(u16),
    /// What `compile` writes, or another program.
    Elf,
    /// WebAssembly in text form.
    Wat,
    /// Any other text.
    Text,
    /// Something else.
    Unknown,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty"),
            Self::CoreModule => f.write_str(
                "it is a core module; build it with `--target wasm32-wasip2`, or wrap it with `wasm-tools component new`",
            ),
            Self::Truncated { bytes } => {
                write!(f, "it was cut off after {bytes} bytes; copy or build it again")
            }
            Self::OtherVersion(version) => write!(
                f,
                "it has the binary version {version}, and this host reads {COMPONENT_VERSION}; build it with other tools"
            ),
            Self::Elf => f.write_str("it is compiled code; name the `.wasm` file that it was made of"),
            Self::Wat => f.write_str("it is WebAssembly text; `wasm-tools parse` makes the binary form"),
            Self::Text => f.write_str("it is a text file"),
            Self::Unknown => f.write_str("it does not begin with `\\0asm` as WebAssembly does"),
        }
    }
}

/// Looks at the outer form of a file: None if it may be a component. Reads a few bytes per section.
pub(crate) fn found(file: &mut (impl Read + Seek)) -> io::Result<Option<Found>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut start = Vec::new();
    file.by_ref().take(LOOKED_AT).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [] => Some(Found::Empty),
        start if start.len() < MAGIC.len() && MAGIC.starts_with(start) => Some(Found::Truncated { bytes: length }),
        [a, b, c, d, rest @ ..] if [*a, *b, *c, *d] == MAGIC => match rest {
            [v0, v1, l0, l1, ..] => match (u16::from_le_bytes([*v0, *v1]), u16::from_le_bytes([*l0, *l1])) {
                (COMPONENT_VERSION, COMPONENT_LAYER) => {
                    (!is_whole(file, length)?).then_some(Found::Truncated { bytes: length })
                }
                (version, COMPONENT_LAYER) => Some(Found::OtherVersion(version)),
                (_, MODULE_LAYER) => Some(Found::CoreModule),
                _ => Some(Found::Unknown),
            },
            _ => Some(Found::Truncated { bytes: length }),
        },
        [0x7f, b'E', b'L', b'F', ..] => Some(Found::Elf),
        start => Some(text(start, length)),
    })
}

/// The names that a component of [`found`]'s outer form exports. What cannot be read exports nothing; the compiler says why.
pub(crate) fn exports(file: &mut (impl Read + Seek)) -> io::Result<Vec<String>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut names = Vec::new();
    let mut at = HEADER_BYTES;
    for _ in 0..MAX_SECTIONS {
        if at >= length {
            break;
        }
        let Some(Section { id, start, bytes }) = section(file, at)? else { break };
        at = start.saturating_add(bytes);
        if id == EXPORT_SECTION && bytes <= MAX_EXPORT_BYTES {
            file.seek(SeekFrom::Start(start))?;
            let mut content = Vec::new();
            file.by_ref().take(bytes).read_to_end(&mut content)?;
            let reader = ComponentExportSectionReader::new(BinaryReader::new(&content, 0));
            let read = reader.map(|reader| reader.into_iter().map_while(Result::ok).map(|e| e.name.name.to_owned()));
            names.extend(read.into_iter().flatten().take(MAX_EXPORTS.saturating_sub(names.len())));
        }
    }
    Ok(names)
}

/// [`found`] as an error that names the file.
pub(crate) fn check(path: &Path, found: Option<Found>) -> Result<(), NotAComponent> {
    found.map_or(Ok(()), |found| Err(NotAComponent { path: path.to_owned(), found }))
}

fn text(start: &[u8], length: u64) -> Found {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be cut in the middle where the look ends.
        Err(error) if length > LOOKED_AT && error.error_len().is_none() => {
            start.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok()).unwrap_or_default()
        }
        Err(_) => return Found::Unknown,
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return Found::Unknown;
    }
    let begins = |word| text.trim_start().starts_with(word);
    if begins("(module") || begins("(component") || begins(";;") { Found::Wat } else { Found::Text }
}

/// Whether the sections end where the file does. What is inside them is for the compiler to judge.
fn is_whole(file: &mut (impl Read + Seek), length: u64) -> io::Result<bool> {
    let mut at = HEADER_BYTES;
    for _ in 0..MAX_SECTIONS {
        if at >= length {
            return Ok(at == length);
        }
        let Some(Section { start, bytes, .. }) = section(file, at)? else {
            // Cut within the number, or no number at all.
            return Ok(length.saturating_sub(at) >= SECTION_HEAD_BYTES);
        };
        at = start.saturating_add(bytes);
    }
    Ok(true)
}

/// One section of a component.
struct Section {
    id: u8,
    /// Where its content starts.
    start: u64,
    /// How long its content is, by its own word.
    bytes: u64,
}

/// The section that begins there; None if its head is cut or malformed.
fn section(file: &mut (impl Read + Seek), at: u64) -> io::Result<Option<Section>> {
    file.seek(SeekFrom::Start(at))?;
    let mut head = Vec::new();
    file.by_ref().take(SECTION_HEAD_BYTES).read_to_end(&mut head)?;
    let Some((id, length)) = head.split_first() else { return Ok(None) };
    Ok(leb128(length).map(|(bytes, used)| Section { id: *id, start: at.saturating_add(1 + used), bytes }))
}

/// An unsigned number of at most 35 bits, and how many bytes it takes.
fn leb128(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut value = 0;
    for (index, byte) in (0_u64..).zip(bytes.iter().take(5)) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(bytes: &[u8]) -> Option<Found> {
        found(&mut Cursor::new(bytes)).unwrap()
    }

    /// A component of custom sections with this many bytes each.
    fn component(sections: &[usize]) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for size in sections {
            bytes.push(0);
            bytes.extend([(size & 0x7f) as u8 | 0x80, (size >> 7) as u8]);
            bytes.extend(vec![0xff; *size]);
        }
        bytes
    }

    #[test]
    fn what_may_be_a_component_is_left_to_the_compiler() {
        for sections in [&[][..], &[0], &[300, 1, 5_000]] {
            assert_eq!(of(&component(sections)), None, "{sections:?}");
        }
    }

    #[test]
    fn exports_are_found_among_other_sections_and_nonsense_exports_nothing() {
        let named = |name: &str| {
            // One export: a plain name, an instance, index 0, no type.
            let mut content = vec![1, 0, u8::try_from(name.len()).unwrap()];
            content.extend(name.bytes());
            content.extend([5, 0, 0]);
            content
        };
        let mut bytes = component(&[300]);
        for name in ["wasi:cli/run@0.2.3", "describe"] {
            let content = named(name);
            bytes.extend([EXPORT_SECTION, u8::try_from(content.len()).unwrap()]);
            bytes.extend(content);
        }
        assert_eq!(exports(&mut Cursor::new(&bytes)).unwrap(), ["wasi:cli/run@0.2.3", "describe"]);
        for broken in [&b"\0asm\x0d\0\x01\0\x0b\x03\xff\xff\xff"[..], b"\0asm\x0d\0\x01\0\x0b", b"", b"\x0b"] {
            assert_eq!(exports(&mut Cursor::new(broken)).unwrap(), [""; 0], "{broken:?}");
        }
    }

    #[test]
    fn a_component_that_is_cut_anywhere_is_named_so() {
        let whole = component(&[300, 2]);
        // At the ends of the header and of a section the rest is a component as well.
        let ends = [8, whole.len() - 5];
        for bytes in (1..whole.len()).filter(|bytes| !ends.contains(bytes)) {
            assert_eq!(of(&whole[..bytes]), Some(Found::Truncated { bytes: bytes as u64 }), "{bytes}");
        }
    }

    #[test]
    fn every_other_file_is_named_for_what_it_is() {
        let long = format!("{}ä", "x".repeat(LOOKED_AT as usize - 1));
        for (bytes, expected) in [
            (&b""[..], Found::Empty),
            (b"\0asm\x01\0\0\0", Found::CoreModule),
            (b"\0asm\x0c\0\x01\0", Found::OtherVersion(12)),
            (b"\0asm\x01\0\x07\0", Found::Unknown),
            (b"\x7fELF\x02\x01", Found::Elf),
            (b"\n  (component)", Found::Wat),
            (b"(module)", Found::Wat),
            (b"<html>\r\n\t</html>", Found::Text),
            (long.as_bytes(), Found::Text),
            (b"PK\x03\x04", Found::Unknown),
            (b"\xff\xfe", Found::Unknown),
            (b"caf\xc3", Found::Unknown),
        ] {
            assert_eq!(of(bytes), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn a_message_is_one_line_that_names_the_file() {
        use Found::{CoreModule, Elf, Empty, OtherVersion, Text, Truncated, Unknown, Wat};
        for found in [Empty, CoreModule, Truncated { bytes: 7 }, OtherVersion(1), Elf, Wat, Text, Unknown] {
            let text = check(Path::new("a.wasm"), Some(found)).unwrap_err().to_string();
            assert!(text.starts_with("`a.wasm` is not a WebAssembly component: ") && !text.contains('\n'), "{text}");
        }
    }
}
