//! A mistake in a configuration file, as a person wants to see it.

use std::fmt::{self, Write as _};

/// Characters of a line that are shown; of longer lines, the part around the mistake.
const MAX_SHOWN: usize = 120;
/// Of the characters before the mistake, those that are shown when the line is cut.
const SHOWN_BEFORE: usize = 40;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The guest runs; the administrator should know.
    Warning,
    /// The guest does not start.
    Error,
}

/// A place in the file. All counts are of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The first line is 1.
    pub line: usize,
    /// The first column is 1.
    pub column: usize,
    /// How many characters are meant; at least 1.
    pub length: usize,
}

/// A message with its place. `Display` shows the place, the line and a mark below it; [`Diagnostic::short`] is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file as it was named.
    pub file: String,
    /// None: the whole file is meant.
    pub position: Option<Position>,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line of `position`.
    pub source_line: Option<String>,
}

impl Diagnostic {
    /// An error about a whole file.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            position: None,
            message: message.into(),
            help: None,
            source_line: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column: message; help`, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        let help = self.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        match self.position {
            Some(Position { line, column, .. }) => format!("{}:{line}:{column}: {}{help}", self.file, self.message),
            None => format!("{}: {}{help}", self.file, self.message),
        }
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        writeln!(f, "{severity}: {}", printable(&self.message))?;
        let number = self.position.map_or(0, |position| position.line).to_string();
        let margin = " ".repeat(number.len());
        match self.position {
            Some(Position { line, column, .. }) => write!(f, "{margin}--> {}:{line}:{column}", self.file)?,
            None => write!(f, "{margin}--> {}", self.file)?,
        }
        if let (Some(position), Some(line)) = (self.position, &self.source_line) {
            let (shown, before) = window(line, position.column.saturating_sub(1));
            let width = position.length.clamp(1, shown.chars().count().saturating_sub(before).max(1));
            write!(f, "\n{margin} |\n{number} | {shown}\n{margin} | {}{}", " ".repeat(before), "^".repeat(width))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The part of a line that is shown, and how many of its characters come before the one at `column` (from 0).
fn window(line: &str, column: usize) -> (String, usize) {
    let length = line.chars().count();
    let column = column.min(length);
    if length <= MAX_SHOWN {
        return (printable(line), column);
    }
    let start = column.saturating_sub(SHOWN_BEFORE);
    let part: String = line.chars().skip(start).take(MAX_SHOWN).collect();
    let lead = if start > 0 { "..." } else { "" };
    let tail = if start.saturating_add(MAX_SHOWN) < length { "..." } else { "" };
    (format!("{lead}{}{tail}", printable(&part)), column - start + lead.len())
}

/// One character for each: no terminal control, no change of direction, tabs as one space so that the mark fits.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        // A `String` takes every write.
        let _ = out.write_char(if c == '\t' {
            ' '
        } else if hidden {
            '\u{fffd}'
        } else {
            c
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, length: usize, source: &str) -> Diagnostic {
        Diagnostic {
            position: Some(Position { line, column, length }),
            source_line: Some(source.to_owned()),
            ..Diagnostic::of_file("a.yaml", "bad")
        }
    }

    #[test]
    fn the_mark_is_below_the_mistake() {
        let text = at(12, 3, 4, "\tänme: x").with_help("do this").to_string();
        assert_eq!(text, "error: bad\n  --> a.yaml:12:3\n   |\n12 |  änme: x\n   |   ^^^^\n   = help: do this");
        assert_eq!(at(12, 3, 4, "").with_help("do this").short(), "a.yaml:12:3: bad; do this");
    }

    #[test]
    fn a_mark_beyond_the_line_is_one_character() {
        assert!(at(1, 99, 99, "ab").to_string().ends_with("1 | ab\n  |   ^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let line = format!("{}HERE{}", "é".repeat(5_000), "b".repeat(5_000));
        let text = at(1, 5_001, 4, &line).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.len() < 600, "{}", text.len());
        let mark = lines[4].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[3].chars().skip(mark).take(4).collect::<String>(), "HERE");
        assert!(lines[3].contains("| ...é") && lines[3].ends_with("b..."));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut diagnostic = at(1, 1, 1, "\u{1b}[31mred\u{202e}");
        diagnostic.message = "a\nb\u{7}".into();
        let text = diagnostic.to_string();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        assert_eq!(text.lines().count(), 5);
    }
}
