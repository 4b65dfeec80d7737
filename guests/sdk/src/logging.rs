//! `tracing` to stderr, which the host takes as log lines of the guest.
//!
//! A small subscriber of its own: the usual one would add half a megabyte to each component for filters by regular
//! expression. Spans are not printed: the host adds controller, object and reconcile id to each line.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The variable that sets the level: `info`, or with targets `warn,kube=debug,my_crate=trace`. Default: `info`.
pub const VARIABLE: &str = "RUST_LOG";

/// Sends events to stderr as `LEVEL target: message name=value`. [`main!`](crate::main) calls it; a second call, or one
/// after a subscriber of your own, changes nothing.
pub fn init() {
    let filter = Filter::parse(&std::env::var(VARIABLE).unwrap_or_default());
    // Refused when there is one already: then that one stays.
    let _ = tracing::subscriber::set_global_default(Stderr { filter });
}

#[derive(Debug, PartialEq)]
struct Filter {
    default: LevelFilter,
    /// Longest target first.
    targets: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// What cannot be understood is left out: a typing error must not silence a guest.
    fn parse(text: &str) -> Self {
        let mut filter = Self { default: LevelFilter::INFO, targets: Vec::new() };
        for directive in text.split(',').map(str::trim) {
            match directive.split_once('=') {
                Some((target, level)) => {
                    filter.targets.extend(parse_level(level).map(|level| (target.trim().to_owned(), level)));
                }
                None => filter.default = parse_level(directive).unwrap_or(filter.default),
            }
        }
        filter.targets.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        filter
    }

    fn level(&self, target: &str) -> LevelFilter {
        self.targets.iter().find(|(prefix, _)| covers(prefix, target)).map_or(self.default, |(_, level)| *level)
    }

    fn most_verbose(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).chain([self.default]).max().unwrap_or(LevelFilter::OFF)
    }
}

/// tracing takes the empty text for `error`.
fn parse_level(text: &str) -> Option<LevelFilter> {
    let text = text.trim();
    if text.is_empty() { None } else { text.parse().ok() }
}

fn covers(prefix: &str, target: &str) -> bool {
    target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

struct Stderr {
    filter: Filter,
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.filter.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.most_verbose())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}:", metadata.level(), metadata.target()));
        event.record(&mut line);
        line.0.push('\n');
        // One write, so that the line stays one line. Nobody could be told of a failure.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Line {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let start = self.0.len();
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value}"),
            name => write!(self.0, " {name}={value}"),
        };
        if self.0[start..].contains('\n') {
            let escaped = self.0[start..].replace('\n', "\\n");
            self.0.truncate(start);
            self.0.push_str(&escaped);
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_per_target() {
        let filter = Filter::parse("warn, kube=debug,kube::client = trace");

        assert_eq!(filter.level("my_crate"), LevelFilter::WARN);
        assert_eq!(filter.level("kube"), LevelFilter::DEBUG);
        assert_eq!(filter.level("kube::api"), LevelFilter::DEBUG);
        assert_eq!(filter.level("kube::client::body"), LevelFilter::TRACE);
        assert_eq!(filter.level("kubernetes"), LevelFilter::WARN);
        assert_eq!(filter.most_verbose(), LevelFilter::TRACE);
    }

    #[test]
    fn nonsense_leaves_the_default() {
        for text in ["", ",", "=", "loud", "kube=loud", "kube=", "==="] {
            assert_eq!(Filter::parse(text).level("kube"), LevelFilter::INFO, "`{text}`");
        }
        assert_eq!(Filter::parse("off").level("kube"), LevelFilter::OFF);
    }
}
