//! Event times from files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harness::{Context as _, Result, bail, ensure};

/// The events of one guest of a trace, from the trace's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Name of the file, and of the guest if the trace has several.
    pub(super) name: String,
    /// Ascending.
    pub(super) events: Vec<Duration>,
}

/// Reads a trace: a time in each line, in seconds or RFC 3339, and optionally a guest. Comments begin with `#`, and a first
/// line `timestamp` or `timestamp,guest` is skipped.
pub(super) fn read(path: &Path) -> Result<Vec<Sequence>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    parse(&name, &text).with_context(|| format!("`{}`", path.display()))
}

fn parse(name: &str, text: &str) -> Result<Vec<Sequence>> {
    let mut guests: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "timestamp" || line == "timestamp,guest" {
            continue;
        }
        let (time, guest) = line.split_once(',').unwrap_or((line, ""));
        let seconds = seconds(time.trim()).with_context(|| format!("line {number}: `{time}` is not a time"))?;
        guests.entry(guest.trim()).or_default().push(seconds);
    }
    let start = guests.values().flatten().copied().fold(f64::INFINITY, f64::min);
    ensure!(start.is_finite(), "there is no event");
    guests
        .into_iter()
        .map(|(guest, mut times)| {
            times.sort_by(f64::total_cmp);
            let since = |time: f64| Duration::try_from_secs_f64(time - start).context("a time out of range");
            Ok(Sequence {
                name: if guest.is_empty() { name.to_owned() } else { format!("{name}:{guest}") },
                events: times.into_iter().map(since).collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_millisecond() as f64 / 1e3)
}

impl Sequence {
    /// The first `length` of the trace, played `speed` times as fast.
    pub(super) fn played(&self, speed: f64, length: Duration) -> Self {
        let events = self.events.iter().map(|event| event.div_f64(speed)).filter(|event| *event <= length).collect();
        Self { name: self.name.clone(), events }
    }
}

/// All traces of these files, or of each CSV file of a directory.
pub(super) fn read_all(paths: &[std::path::PathBuf]) -> Result<Vec<Sequence>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found: Vec<_> = std::fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
            found.retain(|file| file.extension().is_some_and(|extension| extension == "csv"));
            found.sort();
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        bail!("no traces: name CSV files or a directory with some by `--trace`");
    }
    Ok(files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates_and_start_at_zero() {
        let seconds = parse("t", "# two\n\n5.5\n7\n").unwrap();
        assert_eq!(
            seconds,
            [Sequence { name: "t".to_owned(), events: vec![Duration::ZERO, Duration::from_millis(1_500)] }]
        );
        let dates =
            parse("t", "timestamp,guest\n2026-01-01T00:00:01Z,a\n2026-01-01T00:00:02Z,b\n2026-01-01T00:00:04Z,a\n");
        let dates = dates.unwrap();
        assert_eq!(dates.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["t:a", "t:b"]);
        assert_eq!(dates[0].events, [Duration::ZERO, Duration::from_secs(3)]);
        assert_eq!(dates[1].events, [Duration::from_secs(1)], "the guests of a trace have one clock");
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert!(format!("{:#}", parse("t", "1\nsoon\n").unwrap_err()).contains("line 2: `soon`"));
        assert!(parse("t", "NaN\n").is_err());
        assert!(parse("t", "# nothing\n").is_err());
        assert!(read(Path::new("/nowhere.csv")).is_err());
    }

    #[test]
    fn a_trace_is_played_faster_and_cut() {
        let events = [0, 10, 20, 300].map(Duration::from_secs).to_vec();
        let played = Sequence { name: "t".to_owned(), events }.played(10.0, Duration::from_secs(3));
        assert_eq!(played.events, [0, 1, 2].map(Duration::from_secs));
    }
}
