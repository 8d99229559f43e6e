//! Prometheus' text format, read back.

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Series>);

#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub(crate) fn read(text: &str) -> Metrics {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        Metrics(lines.map(Series::read).collect())
    }

    /// Added up over all series that have these labels; 0 when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &Series| {
            series.name == name
                && labels.iter().all(|(label, value)| {
                    series
                        .labels
                        .iter()
                        .any(|(known, is)| known == label && is == value)
                })
        };
        self.0
            .iter()
            .filter(|series| has(series))
            .map(|series| series.value)
            .sum()
    }

    /// The values a label takes anywhere.
    pub(crate) fn values(&self, label: &str) -> Vec<String> {
        let labels = self.0.iter().flat_map(|series| &series.labels);
        let mut values: Vec<_> = labels
            .filter(|(name, _)| name == label)
            .map(|(_, value)| value.clone())
            .collect();
        values.sort();
        values.dedup();
        values
    }

    /// Every name with its label names.
    pub(crate) fn families(&self) -> Vec<(String, Vec<String>)> {
        let family = |series: &Series| {
            let labels = series.labels.iter().map(|(name, _)| name.clone());
            (series.name.clone(), labels.collect())
        };
        self.0.iter().map(family).collect()
    }
}

impl Series {
    fn read(line: &str) -> Series {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (series, ""),
        };
        let mut pairs = Vec::new();
        for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            pairs.push((label.to_owned(), value.trim_end_matches('"').to_owned()));
        }
        Series {
            name: name.to_owned(),
            labels: pairs,
            value: value.parse().unwrap(),
        }
    }
}
