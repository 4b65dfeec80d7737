//! Reads traces: event times as CSV.
//!
//! A line is a time, in seconds or RFC 3339, or `time,guest`. Blank lines, lines that start with `#`, and a first line
//! `timestamp` or `timestamp,guest` are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

/// The longest trace: 256 MiB, some ten million events, each of which takes 16 bytes of memory per policy.
const MAX_FILE: u64 = 256 << 20;

/// The latest time in seconds: in the year 5138, if they count from 1970.
const MAX_SECONDS: f64 = 1e11;

/// What is wrong with a trace. Its owner can mend each.
#[derive(Debug, Error)]
pub(crate) enum TraceError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` has {bytes} bytes, more than the {MAX_FILE} that fit into memory; split it", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("`{}`, line {line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: Problem },
    #[error("`{}` has no guest with two events, so there is no gap to replay", path.display())]
    Empty { path: PathBuf },
}

/// What is wrong with a line.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Problem {
    #[error("`{0}` is neither a number of seconds nor an RFC 3339 time such as `2026-01-31T12:00:00Z`")]
    NotATime(String),
    #[error("seconds and RFC 3339 times are mixed; use one of them in the whole file")]
    MixedTimes,
    #[error("there are {0} columns instead of `time` or `time,guest`")]
    Columns(usize),
    #[error("a guest is named here and not on other lines, or the other way round; name it on all lines or none")]
    MixedColumns,
}

/// One file.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) path: PathBuf,
    /// Each with two events or more.
    pub(crate) sequences: Vec<Sequence>,
    /// Guests with a single event.
    pub(crate) skipped: usize,
}

/// The events of one guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) guest: Option<String>,
    /// Ascending, since the first event of the trace.
    pub(crate) events: Vec<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Seconds,
    Rfc3339,
}

impl Trace {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Read { path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_FILE {
            return Err(TraceError::TooLarge { path: path.to_owned(), bytes });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(failed)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TraceError> {
        let mut guests: BTreeMap<Option<&str>, Vec<i128>> = BTreeMap::new();
        let mut format = None;
        let mut named = None;
        let mut heading = true;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if std::mem::take(&mut heading) && (line == "timestamp" || line == "timestamp,guest") {
                continue;
            }
            let fault = |problem| TraceError::Line { path: path.to_owned(), line: number + 1, problem };
            let (at, guest, this) = event(line).map_err(fault)?;
            if *format.get_or_insert(this) != this {
                return Err(fault(Problem::MixedTimes));
            }
            if *named.get_or_insert(guest.is_some()) != guest.is_some() {
                return Err(fault(Problem::MixedColumns));
            }
            guests.entry(guest).or_default().push(at);
        }
        // A host records an event when the guest begins to work on it, so keys that run side by side change places.
        guests.values_mut().for_each(|events| events.sort_unstable());
        Self::since_first(path, guests)
    }

    fn since_first(path: &Path, guests: BTreeMap<Option<&str>, Vec<i128>>) -> Result<Self, TraceError> {
        let first = guests.values().filter_map(|events| events.first()).min().copied().unwrap_or_default();
        let all = guests.len();
        let sequences: Vec<_> = guests
            .into_iter()
            .filter(|(_, events)| events.len() > 1)
            .map(|(guest, events)| Sequence {
                guest: guest.map(str::to_owned),
                events: events.into_iter().map(|at| nanoseconds(at - first)).collect(),
            })
            .collect();
        if sequences.is_empty() {
            return Err(TraceError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), skipped: all - sequences.len(), sequences })
    }
}

fn nanoseconds(nanoseconds: i128) -> Duration {
    const SECOND: i128 = 1_000_000_000;
    // Both fit: times are within MAX_SECONDS and events ascend.
    Duration::new((nanoseconds / SECOND) as u64, (nanoseconds % SECOND) as u32)
}

/// The time of an event in nanoseconds, and its guest.
fn event(line: &str) -> Result<(i128, Option<&str>, Format), Problem> {
    let mut columns = line.split(',').map(str::trim);
    let time = columns.next().unwrap_or_default();
    let guest = columns.next();
    if columns.next().is_some() {
        return Err(Problem::Columns(line.split(',').count()));
    }
    if let Ok(seconds) = time.parse::<f64>() {
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(Problem::NotATime(time.to_owned()));
        }
        return Ok(((seconds * 1e9).round() as i128, guest, Format::Seconds));
    }
    let at: Timestamp = time.parse().map_err(|_| Problem::NotATime(time.to_owned()))?;
    Ok((at.as_nanosecond(), guest, Format::Rfc3339))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Trace, TraceError> {
        Trace::parse(Path::new("day.csv"), text)
    }

    fn fault(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn seconds_and_rfc3339_are_read_since_the_first_event() {
        let expected = [Sequence { guest: None, events: vec![ms(0), ms(1500), ms(60_000)] }];
        assert_eq!(parsed("100\n101.5\n160\n").unwrap().sequences, expected);
        let times = "2026-01-31T23:59:00Z\r\n2026-01-31T23:59:01.5Z\r\n2026-02-01T01:00:00+01:00\r\n";
        assert_eq!(parsed(times).unwrap().sequences, expected);
    }

    #[test]
    fn a_second_column_makes_a_sequence_per_guest_with_a_common_start() {
        let trace = parsed("timestamp,guest\n0.5,b\n1.5, a\n2.5,b\n3.5,a\n4,lonely\n").unwrap();
        let expected = [
            Sequence { guest: Some("a".to_owned()), events: vec![ms(1000), ms(3000)] },
            Sequence { guest: Some("b".to_owned()), events: vec![ms(0), ms(2000)] },
        ];
        assert_eq!((&trace.sequences[..], trace.skipped), (&expected[..], 1));
    }

    #[test]
    fn comments_blank_lines_a_heading_and_a_byte_order_mark_are_skipped() {
        let trace = parsed("\u{feff}# from the test cluster\n\ntimestamp\n1\n # noon\n2\n").unwrap();
        assert_eq!(trace.sequences[0].events, [ms(0), ms(1000)]);
    }

    #[test]
    fn events_at_the_same_time_are_a_gap_of_nothing() {
        assert_eq!(parsed("7\n7\n").unwrap().sequences[0].events, [ms(0), ms(0)]);
    }

    #[test]
    fn what_is_not_a_time_is_named_with_its_line() {
        let expected = "`day.csv`, line 3: `noon` is neither a number of seconds nor an RFC 3339 time such as \
                        `2026-01-31T12:00:00Z`";
        assert_eq!(fault("1\n\nnoon\n"), expected);
        for bad in ["NaN", "inf", "-1", "1e300", "2026-01-31", "2026-01-31T12:00:00", "", "\u{1f552}"] {
            assert!(fault(&format!("1\n{bad},g\n")).contains(&format!("line 2: `{bad}` is neither")), "{bad}");
        }
    }

    #[test]
    fn events_may_come_in_any_order() {
        assert_eq!(parsed("3\n1\n2\n").unwrap().sequences[0].events, [ms(0), ms(1000), ms(2000)]);
        let expected = [
            Sequence { guest: Some("a".to_owned()), events: vec![ms(1000), ms(3000)] },
            Sequence { guest: Some("b".to_owned()), events: vec![ms(0), ms(1000)] },
        ];
        assert_eq!(parsed("4,a\n1,b\n2,a\n2,b\n").unwrap().sequences, expected);
    }

    #[test]
    fn mixtures_are_refused() {
        assert!(fault("1\n2026-01-31T12:00:00Z\n").contains("line 2: seconds and RFC 3339 times are mixed"));
        assert!(fault("1,a\n2\n").contains("line 2: a guest is named here and not on other lines"));
        assert!(fault("1,a,b\n").contains("line 1: there are 3 columns"));
    }

    #[test]
    fn a_trace_without_a_gap_is_refused() {
        for text in ["", "# nothing\n", "timestamp\n", "1\n", "1,a\n2,b\n"] {
            assert_eq!(fault(text), "`day.csv` has no guest with two events, so there is no gap to replay", "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_missing_or_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.csv");
        assert!(Trace::read(&missing).unwrap_err().to_string().contains("missing.csv`: No such file"));
        let binary = folder.path().join("binary.csv");
        fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
        assert!(Trace::read(&binary).unwrap_err().to_string().contains("valid UTF-8"));
    }
}
