//! Prometheus' text format (version 0.0.4) to samples, and what can be asked of them.
//!
//! Source: "Exposition formats" and the function `histogram_quantile` in Prometheus' documentation. A line that is none is passed over.

use std::collections::BTreeMap;

/// One line: a name, its labels, its value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
}

/// Upper bounds of a histogram's buckets in order, with how many observations are at most as large.
pub type Buckets = Vec<(f64, f64)>;

impl Scrape {
    /// Reads a whole page.
    pub fn parse(text: &str) -> Scrape {
        Scrape::parse_some(text, |_| true)
    }

    /// Reads the lines whose name is wanted, which is cheap on those that are not.
    pub fn parse_some(text: &str, wanted: impl Fn(&str) -> bool) -> Scrape {
        let name = |line: &str| {
            let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
            line.get(..end).is_some_and(&wanted)
        };
        let lines = text.lines().filter(|line| name(line));
        Scrape {
            samples: lines.filter_map(line).collect(),
        }
    }

    /// The sum over all samples of the name, if there is any.
    pub fn known(&self, name: &str) -> Option<f64> {
        let mut samples = self.matching(name, &[]).peekable();
        samples.peek()?;
        Some(samples.map(|sample| sample.value).sum())
    }

    /// How many samples of the name there are.
    pub fn count(&self, name: &str) -> usize {
        self.matching(name, &[]).count()
    }

    /// The sum over all samples of the name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The sum over those of which a label is as wanted.
    pub fn sum_where(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        label: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> f64 {
        let samples = self.matching(name, labels);
        let wanted = samples.filter(|sample| sample.labels.get(label).is_some_and(|v| wanted(v)));
        wanted.map(|sample| sample.value).sum()
    }

    /// The values that a label has.
    pub fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let samples = self.matching(name, &[]);
        samples
            .filter_map(|sample| sample.labels.get(label).map(String::as_str))
            .collect()
    }

    /// The buckets of a histogram, summed over all that have these labels.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let mut buckets: Buckets = Vec::new();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let Some(bound) = sample.labels.get("le").and_then(|le| number(le)) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }

    fn matching<'s>(
        &'s self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = &'s Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && { labels.iter() }
                .all(|(label, value)| sample.labels.get(*label).is_some_and(|own| own == value))
        })
    }
}

/// The value below which this part of the observations lies: linear within a bucket, the largest finite bound beyond it. `None` without
/// observations. Counters that have gone down since began anew.
pub fn quantile(part: f64, older: &Buckets, newer: &Buckets) -> Option<f64> {
    let before = |bound: f64| {
        older
            .iter()
            .find(|(known, _)| *known == bound)
            .map_or(0.0, |(_, n)| *n)
    };
    let restarted = newer.iter().any(|(bound, count)| before(*bound) > *count);
    let counts: Buckets = newer
        .iter()
        .map(|(bound, count)| {
            (
                *bound,
                if restarted {
                    *count
                } else {
                    count - before(*bound)
                },
            )
        })
        .collect();
    let all = counts
        .last()
        .map(|(_, count)| *count)
        .filter(|all| *all > 0.0)?;
    let rank = part * all;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= rank && count > below {
            return match bound.is_finite() {
                true => Some(lower + (bound - lower) * (rank - below) / (count - below)),
                false => Some(lower),
            };
        }
        (lower, below) = (bound, count);
    }
    None
}

fn line(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: number(rest.split_whitespace().next()?)?,
    })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let mut value = String::new();
        let mut chars = after.strip_prefix('"')?.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, char) => value.push(char),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        // The opening quote, and the closing one.
        rest = after.get(end + 2..)?;
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let scrape = Scrape::parse(
            "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"two \\\"} \\\\ \\n\"} 3\na{x=\"2\", } 4 1700000000\nb 1e3\n\nnonsense\nc{x=\"1\" 7\nd{x=1} 2\ne{} +Inf\n",
        );
        assert_eq!(scrape.samples.len(), 4);
        assert_eq!(scrape.sum("a", &[]), 7.0);
        assert_eq!(scrape.sum("a", &[("y", "two \"} \\ \n")]), 3.0);
        assert_eq!(scrape.sum_where("a", &[], "x", |x| x == "2"), 4.0);
        assert_eq!(scrape.sum("b", &[]), 1000.0);
        assert_eq!(scrape.values("a", "x"), ["1", "2"]);
        assert_eq!(scrape.sum("e", &[]), f64::INFINITY);
    }

    #[test]
    fn what_the_metrics_render_is_read() {
        let text = crate::telemetry::Metrics::new().render();
        let wanted = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(wanted > 5, "{text}");
        assert_eq!(Scrape::parse(&text).samples.len(), wanted, "{text}");
    }

    fn histogram(counts: [f64; 4]) -> Buckets {
        vec![
            (0.1, counts[0]),
            (0.5, counts[1]),
            (1.0, counts[2]),
            (f64::INFINITY, counts[3]),
        ]
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let none = histogram([0.0; 4]);
        // A hundred observations, evenly: ten to 0.1, forty to 0.5, fifty to 1.
        let even = histogram([10.0, 50.0, 100.0, 100.0]);
        let near = |value: Option<f64>, wanted: f64| {
            assert!((value.unwrap() - wanted).abs() < 1e-9, "{value:?}")
        };
        near(quantile(0.5, &none, &even), 0.5);
        near(quantile(0.05, &none, &even), 0.05);
        near(quantile(0.99, &none, &even), 0.99);
        assert_eq!(quantile(0.5, &even, &even), None);
        assert_eq!(quantile(0.5, &none, &Vec::new()), None);
        // Beyond the last bound nothing is known but that.
        near(quantile(0.5, &none, &histogram([0.0, 0.0, 0.0, 9.0])), 1.0);
        // Only what came since counts, and a process that began anew counts from zero.
        near(
            quantile(0.5, &even, &histogram([10.0, 50.0, 110.0, 110.0])),
            0.75,
        );
        near(quantile(0.5, &even, &histogram([0.0, 4.0, 4.0, 4.0])), 0.3);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>(), lines in prop::collection::vec("[a-z{}=\",\\\\ 0-9+#.]{0,24}", 0..8)) {
            Scrape::parse(&text);
            Scrape::parse(&lines.join("\n")).buckets("a", &[]);
        }
    }
}
