//! Markdown.

use std::fmt::Write as _;

use super::{PHASES, Results, Row, knobs};
use crate::repeat::Hibernation;
use crate::stage::Shape;
use crate::statistics::Spread;

/// Everything as one text.
pub(super) fn markdown(results: &Results) -> String {
    let mut text = String::from("# Benchmark\n\n");
    header(&mut text, results);
    for controllers in results.sizes() {
        let rows: Vec<&Row> = results.rows_with(controllers).collect();
        let plural = if controllers == 1 { "" } else { "s" };
        let _ = writeln!(text, "\n## {controllers} controller{plural}\n");
        headline(&mut text, &rows);
        let _ = writeln!(text, "\nMemory in MiB, summed over the processes:\n");
        memory(&mut text, &rows);
        hibernation(&mut text, &rows);
    }
    for failure in results.failures() {
        let _ = writeln!(text, "\nNot complete: {failure}");
    }
    settings(&mut text, results);
    text
}

fn header(text: &mut String, results: &Results) {
    let machine = &results.machine;
    let _ = writeln!(
        text,
        "{}; {} ({} cores, {} MiB), Linux {}; Kubernetes {}.\n",
        results.started, machine.processor, machine.cores, machine.memory, machine.kernel, results.kubernetes
    );
    let (rules, procedure) = (&results.rules, &results.procedure);
    let _ = writeln!(
        text,
        "Each figure is the median of at least {} repeats, in brackets the smallest and the largest. Each repeat starts all processes anew; \
         variants take turns. A repeat counts when others used at most {} cores while its hops were timed; `*`: so many of the repeats were \
         disturbed nevertheless. {} hops are timed in a repeat (at most {} laps), one nonce at a time. Idle: {} s after the first lap. \
         Quiet: {} s after the load.\n",
        rules.repeats,
        rules.others_cores,
        procedure.hops,
        procedure.most_laps,
        procedure.settle_seconds,
        procedure.quiet_seconds
    );
    let _ = writeln!(
        text,
        "Rss counts what processes share in each of them (as separate images would), Pss divides it, anonymous is what no file backs. \
         Start: from the first process until a nonce that was written before has been round once."
    );
    if results.setting.shape == Shape::Star {
        let _ = writeln!(
            text,
            "\nAll controllers watch the same object and write into namespaces of their own: one event wakes all of them at once. Hop: \
             from the driver's event of that object to its event of a controller's write."
        );
    }
    if results.setting.heap_bytes > 0 {
        let _ = writeln!(
            text,
            "\nEach controller's heap holds {} MiB besides, all of it written to at its start.",
            results.setting.heap_bytes >> 20
        );
    }
    if procedure.warm_page_cache {
        let _ = writeln!(text, "\nBefore each lap what hibernated guests have on disk is read into the page cache.");
    }
    if results.setting.objects > 1 {
        let _ = writeln!(
            text,
            "\nEach namespace has {} objects, of which one travels; the others never change.",
            results.setting.objects
        );
    }
    if let Some(why) = &results.no_cgroup {
        let _ = writeln!(text, "\nNo figures of a cgroup: {why}.");
    }
}

fn headline(text: &mut String, rows: &[&Row]) {
    line(
        text,
        [
            "Variant",
            "Rss idle",
            "Pss idle",
            "Anonymous idle",
            "Hop p50 ms",
            "p95",
            "p99",
            "CPU s per 1,000 hops",
            "Requests per hop",
            "Open watches",
            "Start s",
            "Wakes per hop",
            "Wakes while quiet",
            "CPU while quiet, % of a core",
        ],
    );
    line(text, ["---"; 14]);
    for row in rows {
        let disturbed = if row.disturbed == 0 { String::new() } else { format!(" *{}", row.disturbed) };
        line(
            text,
            [
                format!("{}{disturbed}", row.title),
                spread(row.spread(|repeat| repeat.idle.rss)),
                spread(row.spread(|repeat| repeat.idle.pss)),
                spread(row.spread(|repeat| repeat.idle.anonymous)),
                spread(row.spread(|repeat| repeat.hop_p50)),
                spread(row.spread(|repeat| repeat.hop_p95)),
                spread(row.spread(|repeat| repeat.hop_p99)),
                spread(row.spread(|repeat| repeat.cpu_per_1000_hops)),
                requests(row),
                spread(row.spread(|repeat| repeat.open_watches)),
                spread(row.spread(|repeat| repeat.start_seconds)),
                spread(row.spread_of_some(|repeat| repeat.wakes_per_hop)),
                spread(row.spread_of_some(|repeat| repeat.wakes_while_quiet)),
                spread(row.spread(|repeat| repeat.quiet_cpu_percent)),
            ],
        );
    }
}

fn memory(text: &mut String, rows: &[&Row]) {
    line(text, ["Variant", "When", "Rss", "Pss", "Anonymous", "Working set of the cgroup"]);
    line(text, ["---"; 6]);
    for row in rows {
        for (phase, memory) in PHASES {
            line(
                text,
                [
                    row.title.to_owned(),
                    phase.to_owned(),
                    spread(row.spread(|repeat| memory(repeat).rss)),
                    spread(row.spread(|repeat| memory(repeat).pss)),
                    spread(row.spread(|repeat| memory(repeat).anonymous)),
                    spread(row.spread_of_some(|repeat| memory(repeat).cgroup)),
                ],
            );
        }
    }
}

/// If any were hibernated.
fn hibernation(text: &mut String, rows: &[&Row]) {
    let of = |row: &Row, figure: &dyn Fn(&Hibernation) -> f64| {
        row.spread_of_some(|repeat| repeat.hibernation.as_ref().map(figure))
    };
    let mut hibernated = rows.iter().filter(|row| of(row, &|hibernation| hibernation.written_kib).is_some()).peekable();
    if hibernated.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "\nHibernation, by the host's histograms; with the first ones, which write everything:\n");
    line(
        text,
        [
            "Variant",
            "To sleep p50 ms",
            "p95",
            "Written each time KiB",
            "Wake to the end of the first turn p50 ms",
            "p95",
            "Wake to the first request p50 ms",
            "p95",
        ],
    );
    line(text, ["---"; 8]);
    for row in hibernated {
        line(
            text,
            [
                row.title.to_owned(),
                spread(of(row, &|hibernation| hibernation.to_sleep.p50)),
                spread(of(row, &|hibernation| hibernation.to_sleep.p95)),
                spread(of(row, &|hibernation| hibernation.written_kib)),
                spread(of(row, &|hibernation| hibernation.first_turn.p50)),
                spread(of(row, &|hibernation| hibernation.first_turn.p95)),
                spread(of(row, &|hibernation| hibernation.first_request.p50)),
                spread(of(row, &|hibernation| hibernation.first_request.p95)),
            ],
        );
    }
}

/// Each verb that any repeat has seen.
fn requests(row: &Row) -> String {
    let mut verbs: Vec<&String> = row.repeats.iter().flat_map(|repeat| repeat.requests_per_hop.keys()).collect();
    verbs.sort();
    verbs.dedup();
    let of = |verb: &String| row.spread(|repeat| repeat.requests_per_hop.get(verb).copied().unwrap_or_default());
    let mut texts: Vec<String> = verbs.into_iter().map(|verb| format!("{verb} {}", spread(of(verb)))).collect();
    if row.repeats.iter().any(|repeat| repeat.refused > 0.0) {
        texts.push(format!("refused in a repeat {}", spread(row.spread(|repeat| repeat.refused))));
    }
    texts.join(", ")
}

fn settings(text: &mut String, results: &Results) {
    let _ = writeln!(text, "\n## What could favour a side\n");
    line(text, ["", "Go", "kube-rs", "bare loop", "wasm-operator"]);
    line(text, ["---"; 5]);
    for knob in &results.knobs {
        line(text, [knob.name, &knob.go, &knob.kube_rs, &knob.floor, &knob.guests]);
    }
    let _ = writeln!(text, "\n{}\n\n{}", knobs::COMMON, results.distinct);
}

pub(crate) fn line<const N: usize>(text: &mut String, cells: [impl AsRef<str>; N]) {
    for cell in &cells {
        let _ = write!(text, "| {} ", cell.as_ref());
    }
    text.push_str("|\n");
}

pub(crate) fn spread(spread: Option<Spread>) -> String {
    let Some(Spread { median, least, most }) = spread else { return "-".to_owned() };
    let (median, least, most) = (number(median), number(least), number(most));
    if least == most { median } else { format!("{median} ({least}-{most})") }
}

/// Three digits, more before the point if there are.
pub(crate) fn number(value: f64) -> String {
    let rounded = match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let plain = rounded.trim_end_matches('0');
    // 100 keeps its zeros, 1.00 is 1.
    if rounded.contains('.') { plain.trim_end_matches('.').to_owned() } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_no_empty_ones() {
        for (value, text) in
            [(2_882.4, "2882"), (100.0, "100"), (99.96, "100"), (35.04, "35"), (2.376, "2.38"), (1.0, "1"), (0.0, "0")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_spread_shows_its_ends_where_they_differ() {
        assert_eq!(spread(None), "-");
        assert_eq!(spread(Spread::of([1.0, 1.001])), "1");
        assert_eq!(spread(Spread::of([1.0, 2.0, 3.5])), "2 (1-3.5)");
    }
}
