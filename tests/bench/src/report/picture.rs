//! Pictures: a panel for each number of controllers, a bar for each variant.

use super::svg::{Anchor, Scale, Svg};
use super::table::number;
use super::{Results, Row};

const WIDTH: f64 = 1_000.0;
/// Height of a bar with the space around it.
const BAR: f64 = 24.0;
/// Above and below the bars of a panel.
const MARGIN: f64 = 40.0;
/// Room for the titles of the variants, on the left.
const TITLES: f64 = 280.0;
/// Room for the figures, on the right.
const FIGURES: f64 = 170.0;
const GRID: &str = "#dddddd";

/// What a bar shows: the widest part first, each drawn over the one before.
struct Part {
    name: &'static str,
    color: &'static str,
    value: fn(&Row) -> f64,
}

const MEMORY: [Part; 3] = [
    Part { name: "Rss", color: "#c6dbef", value: |row| row.median(|repeat| repeat.idle.rss) },
    Part { name: "Pss", color: "#6baed6", value: |row| row.median(|repeat| repeat.idle.pss) },
    Part { name: "anonymous", color: "#08519c", value: |row| row.median(|repeat| repeat.idle.anonymous) },
];

const LATENCY: [Part; 3] = [
    Part { name: "p99", color: "#fdd0a2", value: |row| row.median(|repeat| repeat.hop_p99) },
    Part { name: "p95", color: "#fd8d3c", value: |row| row.median(|repeat| repeat.hop_p95) },
    Part { name: "p50", color: "#a63603", value: |row| row.median(|repeat| repeat.hop_p50) },
];

/// Memory of idle controllers. Logarithmic: three orders of magnitude are common.
pub(super) fn memory(results: &Results) -> String {
    draw(results, "Memory idle, MiB (logarithmic)", &MEMORY, |values, start, length| {
        // A logarithmic scale has no zero.
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(1.0, f64::min);
        Scale::logarithmic(least / 2.0, most(values), start, length)
    })
}

/// Time of a hop.
pub(super) fn latency(results: &Results) -> String {
    draw(results, "Time of a hop, ms", &LATENCY, |values, start, length| Scale::linear(most(values), start, length))
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn draw(results: &Results, caption: &str, parts: &[Part], scale: impl Fn(&[f64], f64, f64) -> Scale) -> String {
    let panels: Vec<(usize, Vec<&Row>)> =
        results.sizes().into_iter().map(|size| (size, results.rows_with(size).collect())).collect();
    let height = |rows: &[&Row]| 2.0 * MARGIN + BAR * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, panels.iter().map(|(_, rows)| height(rows)).sum());
    let mut top = 0.0;
    for (controllers, rows) in &panels {
        let values: Vec<f64> = rows.iter().flat_map(|row| parts.iter().map(|part| (part.value)(row))).collect();
        let scale = scale(&values, TITLES, WIDTH - TITLES - FIGURES);
        svg.text((8.0, top + 20.0), Anchor::Start, 16, format_args!("{caption}, N = {controllers}"));
        legend(&mut svg, top + 20.0, parts);
        panel(&mut svg, top + MARGIN, rows, parts, &scale);
        top += height(rows);
    }
    svg.finish()
}

fn legend(svg: &mut Svg, baseline: f64, parts: &[Part]) {
    for (place, part) in parts.iter().rev().enumerate() {
        let x = WIDTH - 110.0 * (parts.len() - place) as f64;
        svg.rectangle((x, baseline - 10.0), (12.0, 12.0), part.color);
        svg.text((x + 18.0, baseline), Anchor::Start, 13, part.name);
    }
}

fn panel(svg: &mut Svg, top: f64, rows: &[&Row], parts: &[Part], scale: &Scale) {
    let bottom = top + BAR * rows.len() as f64;
    for tick in scale.ticks() {
        svg.line([(scale.at(tick), top), (scale.at(tick), bottom + 4.0)], GRID);
        svg.text((scale.at(tick) - 4.0, bottom + 18.0), Anchor::Start, 11, number(tick));
    }
    for (place, row) in rows.iter().enumerate() {
        let y = top + BAR * place as f64;
        svg.text((TITLES - 8.0, y + 16.0), Anchor::End, 13, row.title);
        for part in parts {
            let end = scale.at((part.value)(row));
            svg.rectangle((TITLES, y + 3.0), (end - TITLES, BAR - 6.0), part.color);
        }
        let figures: Vec<String> = parts.iter().rev().map(|part| number((part.value)(row))).collect();
        let end = parts.iter().map(|part| scale.at((part.value)(row))).fold(TITLES, f64::max);
        svg.text((end + 6.0, y + 16.0), Anchor::Start, 12, figures.join(" / "));
    }
}
