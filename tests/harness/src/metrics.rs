//! The text format of Prometheus, as far as it is needed to look at a host.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads a scrape. Lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    /// The sum of the samples of this name that have these labels among theirs; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The value of the one sample, `None` if there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).next().map(|sample| sample.value)
    }

    /// The names of all samples.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|sample| sample.name.as_str())
    }

    /// The label sets of a name.
    pub fn labels<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
        self.samples.iter().filter(move |sample| sample.name == name).map(|sample| &sample.labels)
    }

    /// The quantile (0 to 1) of a histogram, linear within its bucket as Prometheus's `histogram_quantile` does it; None without observations.
    pub fn quantile(&self, name: &str, labels: &[(&str, &str)], quantile: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let end: f64 = sample.labels.get("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(other, _)| *other == end) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((end, sample.value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let rank = buckets.last()?.1 * quantile;
        let (mut start, mut below) = (0.0, 0.0);
        for (end, count) in buckets {
            if count >= rank && count > below {
                return Some(if end.is_finite() {
                    start + (end - start) * (rank - below) / (count - below)
                } else {
                    start
                });
            }
            (start, below) = (end, count);
        }
        None
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        let has = move |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(move |sample| sample.name == name).filter(has)
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let name_end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (key, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
                rest = after;
            }
            rest = rest.strip_prefix('}')?;
        }
        // A timestamp or an exemplar may follow.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

/// Up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a help\n# TYPE a counter\na_total{guest=\"x\",kind=\"q\\\"\\\\}\"} 3\na_total{guest=\"y\",kind=\"b\"} 4 # {t=\"1\"} 2\nplain 1.5e3\n# EOF\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.get("a_total", &[("kind", "q\"\\}")]), Some(3.0));
        assert_eq!(metrics.get("a_total", &[("guest", "z")]), None);
        assert_eq!(metrics.get("plain", &[]), Some(1500.0));
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let text =
            "h_bucket{le=\"1.0\"} 0\nh_bucket{le=\"2.0\"} 10\nh_bucket{le=\"4.0\"} 20\nh_bucket{le=\"+Inf\"} 20\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.quantile("h", &[], 0.25), Some(1.5));
        assert_eq!(metrics.quantile("h", &[], 0.75), Some(3.0));
        assert_eq!(Metrics::parse("").quantile("h", &[], 0.5), None);
    }
}
