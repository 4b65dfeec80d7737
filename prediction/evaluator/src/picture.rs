//! A guest's gaps over time, and below it when each policy kept the guest resident.

use std::collections::BTreeSet;
use std::time::Duration;

use plotters::prelude::*;

use crate::replay::{COLUMNS, Replayed};

const LEFT: u32 = 130;
const RIGHT: u32 = 20;
const MARGIN: u32 = 10;
const WIDTH: u32 = LEFT + COLUMNS as u32 + RIGHT;
const GAPS_HEIGHT: u32 = 300;
const ROW: i32 = 20;
const BAR: i32 = 14;
const FONT: (&str, u32) = ("sans-serif", 13);

/// Shades of residency within a column. More cannot be told apart and would make the file larger.
const SHADES: f32 = 8.0;

/// Shorter gaps are drawn as this long, in seconds: the axis is logarithmic.
const SHORTEST: f64 = 0.01;

/// Points of the same guest closer than this share of the axes' lengths are one.
const POINTS: (f64, f64) = (COLUMNS as f64, 100.0);

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PictureError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PictureError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

/// Draws it.
pub(crate) fn svg(title: &str, guest: &Replayed) -> Result<String, PictureError> {
    let height = GAPS_HEIGHT + (guest.residency.len() as u32 + 1) * ROW as u32;
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (gaps, rows) = root.split_vertically(GAPS_HEIGHT);
        draw_gaps(&gaps, title, guest)?;
        draw_residency(&rows, guest)?;
        root.present()?;
    }
    Ok(picture)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_gaps(area: &Area<'_>, title: &str, guest: &Replayed) -> Result<(), PictureError> {
    let (unit, seconds) = unit(guest.span);
    let end = (guest.span.as_secs_f64() / seconds).max(f64::MIN_POSITIVE);
    let gaps = || guest.gaps.iter().map(|(at, gap)| (at.as_secs_f64() / seconds, gap.as_secs_f64().max(SHORTEST)));
    let least = gaps().map(|(_, gap)| gap).fold(f64::INFINITY, f64::min) / 2.0;
    let most = gaps().map(|(_, gap)| gap).fold(SHORTEST, f64::max) * 2.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin_right(RIGHT)
        .margin_left(MARGIN)
        .x_label_area_size(48)
        .y_label_area_size(LEFT - MARGIN)
        .build_cartesian_2d(0.0..end, (least..most).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(format!("time since the first event ({unit})"))
        .y_desc("gap (s)")
        .label_style(FONT)
        .light_line_style(WHITE)
        .draw()?;
    let (columns, rows) = POINTS;
    let mut drawn = BTreeSet::new();
    let points = gaps().filter(|(at, gap)| {
        drawn.insert(((at / end * columns) as u32, ((gap / least).ln() / (most / least).ln() * rows) as u32))
    });
    chart.draw_series(points.map(|point| Circle::new(point, 2, BLUE.mix(0.6).filled())))?;
    Ok(())
}

fn draw_residency(area: &Area<'_>, guest: &Replayed) -> Result<(), PictureError> {
    let left = LEFT as i32;
    for (row, (policy, columns)) in (0..).zip(&guest.residency) {
        let top = row * ROW;
        area.draw(&Text::new(policy.name(), (4, top + 1), FONT))?;
        let shades = columns.iter().map(|share| (share.clamp(0.0, 1.0) * SHADES).ceil() as u8);
        let mut start = 0;
        for run in shades.collect::<Vec<_>>().chunk_by(|a, b| a == b) {
            let end = start + run.len() as i32;
            if let Some(shade) = run.first().filter(|shade| **shade > 0) {
                let style = BLUE.mix(f64::from(*shade) / f64::from(SHADES)).filled();
                area.draw(&Rectangle::new([(left + start, top), (left + end, top + BAR)], style))?;
            }
            start = end;
        }
        area.draw(&PathElement::new([(left, top + BAR), (left + COLUMNS as i32, top + BAR)], BLACK.mix(0.3)))?;
    }
    Ok(())
}

/// The unit of the time axis, and its seconds.
fn unit(span: Duration) -> (&'static str, f64) {
    match span.as_secs() {
        0..300 => ("s", 1.0),
        300..18_000 => ("min", 60.0),
        18_000..432_000 => ("h", 3600.0),
        _ => ("days", 86_400.0),
    }
}
