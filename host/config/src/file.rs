//! Reading the configuration file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::diagnostic::{Diagnostic, printable};
use crate::parse::{Parsed, parse};

/// A configuration file: ten thousand guests with nearly a kilobyte each.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

/// Reads a configuration file. An error is about the file as a whole; whatever ran before should go on.
pub fn read(path: &Path, host_namespace: Option<&str>) -> Result<Parsed, Box<Diagnostic>> {
    let name = path.display().to_string();
    let error = |message: String| Diagnostic::of_file(name.clone(), message);
    let bytes = read_bounded(path).map_err(|source| Box::new(match source.kind() {
        io::ErrorKind::NotFound => error("there is no such file".into())
            .with_help("name the configuration file as the argument; the default is `wasm_config.yaml` in the current directory"),
        io::ErrorKind::IsADirectory => error("this is a directory".into()).with_help("name the file in it"),
        io::ErrorKind::FileTooLarge => error(format!("the file has more than {} MiB", MAX_FILE_BYTES >> 20)),
        _ => error(format!("the file cannot be read: {source}")),
    }))?;
    let text = String::from_utf8(bytes).map_err(|not_text| {
        let valid = not_text.utf8_error().valid_up_to();
        let before = not_text.as_bytes().get(..valid).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count().saturating_add(1);
        let error = error(format!("the file is not UTF-8: line {line} holds other bytes"));
        Box::new(error.with_help("save it as UTF-8; UTF-16 and Latin-1 are not read"))
    })?;
    Ok(parse(&printable(&name), &text, host_namespace))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(content: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, content).unwrap();
        read(&path, None).unwrap_err().short()
    }

    #[test]
    fn a_missing_file_is_said_to_be_missing() {
        let text = read(Path::new("/nowhere/wasm_config.yaml"), None).unwrap_err().short();
        assert!(text.starts_with("/nowhere/wasm_config.yaml: there is no such file; name"), "{text}");
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path(), None).unwrap_err().short().contains("this is a directory"));
    }

    #[test]
    fn other_encodings_are_named_with_their_line() {
        assert!(error(b"name: a\nwasm: \xff\xfe").contains("not UTF-8: line 2"));
        assert!(error(b"\xff\xfen\0a\0").contains("line 1"));
    }

    #[test]
    fn a_huge_file_is_not_read_to_its_end() {
        assert!(read(Path::new("/dev/zero"), None).unwrap_err().short().contains("more than 8 MiB"));
    }
}
