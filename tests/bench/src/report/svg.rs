//! As much SVG as bars and lines need.

use std::fmt::{Display, Write as _};

/// A picture that is being drawn.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Which end of a text is at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    End,
}

impl Svg {
    /// An empty picture of this size in pixels.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A filled rectangle.
    pub(crate) fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: &str) {
        let width = width.max(0.0);
        self.element(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#
        ));
    }

    /// A line through these points.
    pub(crate) fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, color: &str) {
        let points: Vec<String> = points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.element(format_args!(r#"<polyline points="{points}" fill="none" stroke="{color}"/>"#));
    }

    /// A text whose baseline is at `y`.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: u32, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::End => "end",
        };
        let text = escaped(&text.to_string());
        self.element(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{text}</text>"#
        ));
    }

    /// The whole file.
    pub(crate) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif">
<rect width="100%" height="100%" fill="white"/>
{body}</svg>
"#
        )
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = writeln!(self.body, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: f64,
    to: f64,
    start: f64,
    length: f64,
    logarithmic: bool,
}

impl Scale {
    /// Zero at `start`, `most` at `start + length`.
    pub(crate) fn linear(most: f64, start: f64, length: f64) -> Self {
        Self { from: 0.0, to: most.max(f64::MIN_POSITIVE), start, length, logarithmic: false }
    }

    /// `least` at `start`, `most` at `start + length`. Both are above zero.
    pub(crate) fn logarithmic(least: f64, most: f64, start: f64, length: f64) -> Self {
        let from = least.max(f64::MIN_POSITIVE).ln();
        Self { from, to: most.ln().max(from + 1.0), start, length, logarithmic: true }
    }

    /// The place of a value. What is outside of the scale is at its end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.start + self.length * share
    }

    /// Round values to draw lines at: powers of ten, or 1, 2, 5 times one.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let (first, last) = (self.from / std::f64::consts::LN_10, self.to / std::f64::consts::LN_10);
            return (first.ceil() as i32..=last.floor() as i32).map(|power| 10_f64.powi(power)).collect();
        }
        let wanted = self.to / 6.0;
        let power = 10_f64.powf(wanted.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= wanted);
        let step = step.unwrap_or(power * 10.0);
        (0..=(self.to / step) as u32).map(|count| f64::from(count) * step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_put_their_ends_where_they_belong() {
        let linear = Scale::linear(10.0, 100.0, 200.0);
        assert_eq!((linear.at(0.0), linear.at(5.0), linear.at(10.0), linear.at(99.0)), (100.0, 200.0, 300.0, 300.0));
        let logarithmic = Scale::logarithmic(1.0, 100.0, 0.0, 100.0);
        assert!((logarithmic.at(10.0) - 50.0).abs() < 1e-9);
        assert_eq!((logarithmic.at(0.0), logarithmic.at(-1.0)), (0.0, 0.0));
    }

    #[test]
    fn ticks_are_round_values_within_the_scale() {
        assert_eq!(Scale::linear(10.0, 0.0, 1.0).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Scale::logarithmic(0.5, 3_000.0, 0.0, 1.0).ticks(), [1.0, 10.0, 100.0, 1_000.0]);
        assert!(Scale::linear(0.0, 0.0, 1.0).at(1.0).is_finite());
        assert!(!Scale::linear(0.0, 0.0, 1.0).ticks().is_empty());
    }

    #[test]
    fn texts_cannot_break_the_file() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((0.0, 0.0), Anchor::Start, 12, "a<b & c>");
        assert!(svg.finish().contains("a&lt;b &amp; c&gt;"));
    }
}
