//! Prometheus' text format for gauges that are read from live state at the moment somebody asks.
//!
//! They are declared with all others, but nothing is kept of them between two scrapes: of thirty thousand targets that would take more memory than the
//! targets do, and what is no longer configured would have to be found and taken away.

use std::fmt::Write;

use prometheus::core::Collector;

/// A page being written, after what is kept.
pub struct Page {
    text: String,
}

impl Page {
    pub(super) fn after(text: String) -> Page {
        Page { text }
    }

    /// Begins the gauges of one declared name.
    pub fn gauges(&mut self, declared: &impl Collector) -> Gauges<'_> {
        self.samples(declared, "gauge")
    }

    /// Begins what only ever grows, of one declared name.
    pub fn counters(&mut self, declared: &impl Collector) -> Gauges<'_> {
        self.samples(declared, "counter")
    }

    fn samples(&mut self, declared: &impl Collector, kind: &'static str) -> Gauges<'_> {
        let declared = declared.desc();
        let (name, help, labels) = match declared.first() {
            Some(desc) => (
                desc.fq_name.clone(),
                desc.help.clone(),
                desc.variable_labels.clone(),
            ),
            None => Default::default(),
        };
        Gauges {
            text: &mut self.text,
            kind,
            name,
            help,
            labels,
            begun: false,
        }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The gauges of one name.
pub struct Gauges<'p> {
    text: &'p mut String,
    kind: &'static str,
    name: String,
    help: String,
    labels: Vec<String>,
    begun: bool,
}

impl Gauges<'_> {
    /// One of them: its labels' values in the order of the declaration.
    pub fn add(&mut self, values: &[&str], value: f64) {
        if !std::mem::replace(&mut self.begun, true) {
            let (name, help, kind) = (&self.name, &self.help, self.kind);
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(&self.name);
        for (n, (label, value)) in self.labels.iter().zip(values).enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escape(value: &str, text: &mut String) {
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            char => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    #[test]
    fn gauges_are_written_as_the_encoder_writes_its_own() {
        let metrics = Metrics::new();
        let samples = [
            (["u", "http://a"], 1.0),
            (["v\"\\\n", "h2c://b"], -2.5),
            (["w", "c"], 0.0),
        ];
        let mut page = super::Page::after(String::new());
        let mut gauges = page.gauges(&metrics.key_expiry);
        for (values, value) in &samples {
            gauges.add(values, *value);
            metrics.key_expiry.with_label_values(values).set(*value);
        }
        page.gauges(&metrics.target_up);
        let written = page.finish();
        let encoded = metrics.render();
        let sorted = |text: &str| {
            let own = |line: &&str| line.contains("tollgate_key_expiry_seconds");
            let mut lines: Vec<String> = text.lines().filter(own).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&written), sorted(&encoded));
        assert_eq!(written.lines().count(), 5);
    }
}
