//! `docs/metrics.md`: every metric.

use std::fmt::Write;

use tollgate::telemetry::Metrics;

use super::{MADE, cell, prose};
use crate::documents::compare;

const HEAD: &str = "\
`GET /metrics` of the admin listener answers in Prometheus' text format. Values of labels come from the configuration, never from clients, so their number
is bounded. Times are in seconds. Beside these there are `process_*` (CPU, memory, open files), as of every program that Prometheus knows. Which of them to look at,
and what to alert on: [observability.md](observability.md).
";

fn made() -> String {
    let mut out = format!("# Metrics\n\n{MADE}\n\n{HEAD}\n");
    out += "| name | type | labels | what it tells |\n|---|---|---|---|\n";
    for metric in Metrics::new().declared() {
        let labels: Vec<_> = { metric.labels.iter() }
            .map(|label| format!("`{label}`"))
            .collect();
        let (kind, labels) = (metric.kind, labels.join(", "));
        let help = cell(&prose(&metric.help));
        writeln!(out, "| `{}` | {kind} | {labels} | {help} |", metric.name).unwrap();
    }
    out
}

#[test]
fn the_page_is_current() {
    compare("docs/metrics.md", &made());
}

#[test]
fn every_metric_says_what_it_is() {
    let metrics = Metrics::new();
    let of = |name: &str| {
        let mut declared = metrics.declared().iter();
        declared.find(|metric| metric.name == name).unwrap().clone()
    };
    assert_eq!(of("tollgate_requests_total").kind, "counter");
    assert_eq!(
        of("tollgate_requests_total").labels,
        ["gateway", "service", "code"]
    );
    assert_eq!(of("tollgate_overhead_seconds").kind, "histogram");
    assert_eq!(of("tollgate_store_up").kind, "gauge");
    assert!(
        metrics
            .declared()
            .iter()
            .all(|metric| !metric.help.is_empty())
    );
    // What is scraped of a fresh process, apart from the process's own, is declared.
    let text = metrics.render();
    let scraped = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let scraped: Vec<_> = scraped
        .filter(|line| line.starts_with("tollgate_"))
        .collect();
    assert!(!scraped.is_empty(), "{text}");
    for line in scraped {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(of(name).kind, kind, "{name}");
    }
}
