//! The record of what wakes guests: one line per event, for `wasm-operator-prediction evaluate`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Writes `timestamp,guest` lines: RFC 3339 in UTC, then the guest's name.
pub(crate) struct Recorder {
    /// None after an error: a full disk must not cost every event a warning.
    file: Mutex<Option<File>>,
}

impl Recorder {
    /// Appends to the file, made if missing, mode as the umask says.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file: Mutex::new(Some(file)) })
    }

    /// An event reached the guest.
    pub(crate) fn record(&self, guest: &str, at: SystemTime) {
        let Ok(at) = Timestamp::try_from(at) else { return };
        // One write per line, so that lines of a file that is read meanwhile are whole.
        let line = format!("{at},{guest}\n");
        let mut file = self.file.lock();
        if let Some(open) = file.as_mut()
            && let Err(error) = open.write_all(line.as_bytes())
        {
            tracing::error!(%error, "the record of wakes cannot be written; recording ends");
            *file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_event_is_one_line_and_a_file_that_is_there_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wakes.csv");
        for (guest, second) in [("a", 1), ("b", 2)] {
            let recorder = Recorder::open(&path).unwrap();
            recorder.record(guest, SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1000 + 500));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "1970-01-01T00:00:01.5Z,a\n1970-01-01T00:00:02.5Z,b\n");
    }

    #[test]
    fn a_disk_that_is_full_ends_the_record_and_nothing_else() {
        let recorder = Recorder::open(Path::new("/dev/full")).unwrap();
        recorder.record("a", SystemTime::now());
        assert!(recorder.file.lock().is_none());
        recorder.record("a", SystemTime::now());
    }
}
