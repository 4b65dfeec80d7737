//! What the replay showed: a table for each guest, and the memory of each host over time.

use std::fmt::Write as _;
use std::path::Path;

use harness::{Context as _, Latencies, Result};
use serde::Serialize;

use super::Replay;
use super::lane::{Counts, Lane, Side};
use super::replay::{Outcome, Sample, SideOutcome};
use crate::report::svg::{Anchor, Scale, Svg};
use crate::report::table::{line, number};
use crate::system::Machine;

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 360.0;
/// Room for the scale, the caption and the axis.
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 30.0;
const COLORS: [&str; 4] = ["#444444", "#08519c", "#31a354", "#d94801"];
const GRID: &str = "#dddddd";

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Results {
    started: String,
    machine: Machine,
    speed: f64,
    seconds: f64,
    skipped: Vec<String>,
    hosts: Vec<HostRow>,
    guests: Vec<GuestRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostRow {
    sleep: &'static str,
    guests: usize,
    mean_anonymous: f64,
    most_anonymous: f64,
    mean_rss: f64,
    cpu_seconds: f64,
    others_cores: f64,
    samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GuestRow {
    program: &'static str,
    trace: String,
    sleep: &'static str,
    events: usize,
    lost: usize,
    delay_p50: f64,
    delay_p95: f64,
    delay_p99: f64,
    delay_most: f64,
    resident_percent: f64,
    counts: Counts,
}

impl Results {
    pub(super) fn new(
        replay: &Replay,
        started: jiff::Timestamp,
        machine: Machine,
        skipped: Vec<String>,
        sides: &[Side],
        outcomes: &[SideOutcome],
    ) -> Self {
        let seconds = replay.length.as_secs_f64();
        let hosts = sides.iter().zip(outcomes).map(|(side, outcome)| host_row(side, outcome)).collect();
        let mut guests = Vec::new();
        // The ways to sleep stand side by side, for each guest and trace.
        let most = sides.iter().map(|side| side.lanes.len()).max().unwrap_or_default();
        for place in 0..most {
            for (side, outcome) in sides.iter().zip(outcomes) {
                if let (Some(lane), Some(result)) = (side.lanes.get(place), outcome.lanes.get(place)) {
                    guests.push(guest_row(side, lane, result, outcome.elapsed));
                }
            }
        }
        let started = started.strftime("%Y-%m-%d %H:%M UTC").to_string();
        Self { started, machine, speed: replay.speed, seconds, skipped, hosts, guests }
    }

    /// Writes `traces.md`, `traces.json` and `traces.svg`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = self.markdown();
        let picture = picture(&self.hosts, self.seconds);
        for (name, content) in
            [("traces.json", serde_json::to_string_pretty(self)?), ("traces.md", text.clone()), ("traces.svg", picture)]
        {
            let path = directory.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Traces\n\n");
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "{}; {} ({} cores, {} MiB), Linux {}. The first {} s of each trace, {} times as fast as they happened: {} s of a trace take \
             1 s here, while wakes take as long as they take. A host for each way to sleep, one after the other, each once. `Fixed` sleeps \
             after 1 s without work. \
             The delay of an event is the time from its write to the guest's own, as the driver's watch sees both, and has a round trip to \
             the API server in it.\n",
            self.started,
            machine.processor,
            machine.cores,
            machine.memory,
            machine.kernel,
            number(self.seconds * self.speed),
            number(self.speed),
            number(self.speed),
        );
        for skipped in &self.skipped {
            let _ = writeln!(text, "Skipped: {skipped}.\n");
        }
        self.hosts_table(&mut text);
        self.guests_table(&mut text);
        text
    }

    fn hosts_table(&self, text: &mut String) {
        line(
            text,
            ["Host", "Guests", "Anonymous MiB, mean", "most", "Rss MiB, mean", "CPU s", "Cores that others used"],
        );
        line(text, ["---"; 7]);
        for host in &self.hosts {
            line(
                text,
                [
                    host.sleep.to_owned(),
                    host.guests.to_string(),
                    number(host.mean_anonymous),
                    number(host.most_anonymous),
                    number(host.mean_rss),
                    number(host.cpu_seconds),
                    number(host.others_cores),
                ],
            );
        }
        text.push('\n');
    }

    fn guests_table(&self, text: &mut String) {
        line(
            text,
            [
                "Guest",
                "Trace",
                "Sleep",
                "Events",
                "Delay p50 ms",
                "p95",
                "p99",
                "most",
                "Resident",
                "Wakes",
                "Hits",
                "Misses",
                "Wasted",
            ],
        );
        line(text, ["---"; 13]);
        for guest in &self.guests {
            let lost = if guest.lost == 0 { String::new() } else { format!(", {} without an answer", guest.lost) };
            line(
                text,
                [
                    guest.program.to_owned(),
                    guest.trace.clone(),
                    guest.sleep.to_owned(),
                    format!("{}{lost}", guest.events),
                    number(guest.delay_p50),
                    number(guest.delay_p95),
                    number(guest.delay_p99),
                    number(guest.delay_most),
                    format!("{} %", number(guest.resident_percent)),
                    number(guest.counts.wakes),
                    number(guest.counts.hits),
                    number(guest.counts.misses),
                    number(guest.counts.wasted),
                ],
            );
        }
    }
}

fn host_row(side: &Side, outcome: &SideOutcome) -> HostRow {
    let count = outcome.samples.len().max(1) as f64;
    let mean = |figure: fn(&Sample) -> f64| outcome.samples.iter().map(figure).sum::<f64>() / count;
    HostRow {
        sleep: side.sleep.name(),
        guests: side.lanes.len(),
        mean_anonymous: mean(|sample| sample.anonymous),
        most_anonymous: outcome.samples.iter().map(|sample| sample.anonymous).fold(0.0, f64::max),
        mean_rss: mean(|sample| sample.rss),
        cpu_seconds: outcome.cpu,
        others_cores: outcome.others_cores,
        samples: outcome.samples.clone(),
    }
}

fn guest_row(side: &Side, lane: &Lane, outcome: &Outcome, elapsed: f64) -> GuestRow {
    let mut delays = Latencies::default();
    outcome.delays.iter().for_each(|delay| delays.add(*delay));
    let milliseconds = |percent| delays.percentile(percent).as_secs_f64() * 1e3;
    GuestRow {
        program: lane.program,
        trace: lane.trace.clone(),
        sleep: side.sleep.name(),
        events: delays.len() + outcome.lost,
        lost: outcome.lost,
        delay_p50: milliseconds(50),
        delay_p95: milliseconds(95),
        delay_p99: milliseconds(99),
        delay_most: milliseconds(100),
        resident_percent: 100.0 * outcome.counts.resident_seconds / elapsed,
        counts: outcome.counts,
    }
}

fn picture(hosts: &[HostRow], seconds: f64) -> String {
    let most = hosts.iter().map(|host| host.most_anonymous).fold(0.0, f64::max);
    let across = Scale::linear(seconds, LEFT, WIDTH - LEFT - 20.0);
    let up = Scale::linear(most, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT);
    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.text((8.0, 20.0), Anchor::Start, 16, "Anonymous memory of the host over time, MiB");
    for tick in up.ticks() {
        svg.line([(LEFT, up.at(tick)), (WIDTH - 20.0, up.at(tick))], GRID);
        svg.text((LEFT - 6.0, up.at(tick) + 4.0), Anchor::End, 11, number(tick));
    }
    for tick in across.ticks() {
        svg.text((across.at(tick), HEIGHT - 10.0), Anchor::Start, 11, format_args!("{} s", number(tick)));
    }
    for (place, (host, color)) in hosts.iter().zip(COLORS.iter().cycle()).enumerate() {
        svg.line(host.samples.iter().map(|sample| (across.at(sample.at), up.at(sample.anonymous))), color);
        let x = WIDTH - 120.0 * (hosts.len() - place) as f64;
        svg.rectangle((x, 10.0), (12.0, 12.0), color);
        svg.text((x + 18.0, 20.0), Anchor::Start, 13, host.sleep);
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_holds_every_host_within_its_frame() {
        let row = |sleep, anonymous| HostRow {
            sleep,
            guests: 1,
            mean_anonymous: anonymous,
            most_anonymous: anonymous,
            mean_rss: anonymous,
            cpu_seconds: 0.0,
            others_cores: 0.0,
            samples: vec![Sample { at: 0.0, anonymous, rss: anonymous }, Sample { at: 10.0, anonymous: 0.0, rss: 0.0 }],
        };
        let svg = picture(&[row("Never", 100.0), row("Immediately", 1.0)], 10.0);
        assert!(svg.contains("Never") && svg.contains("Immediately"));
        assert!(svg.contains(r#"points="60.0,40.0 980.0,330.0""#), "{svg}");
        assert!(picture(&[], 1.0).starts_with("<svg"));
    }
}
