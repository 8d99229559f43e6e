//! How a metric is declared: registered, and remembered with what it tells.

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::times::TimesVec;

/// What is known of a metric before anything is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it tells.
    pub help: String,
}

#[derive(Default)]
pub(super) struct Declarations {
    pub(super) registry: Registry,
    pub(super) declared: Vec<Declared>,
}

pub(super) fn add<C: Collector + Clone + 'static>(to: &mut Declarations, metric: C) -> C {
    // A metric with labels tells its type before it has any values.
    let kind = match metric.collect().first().map(MetricFamily::get_field_type) {
        Some(MetricType::COUNTER) => "counter",
        Some(MetricType::HISTOGRAM) => "histogram",
        _ => "gauge",
    };
    let described = metric.desc().into_iter().map(|desc| Declared {
        name: desc.fq_name.clone(),
        kind,
        labels: desc.variable_labels.clone(),
        help: desc.help.clone(),
    });
    to.declared.extend(described);
    // A second registration of a name cannot happen: each is declared once, above.
    let _ = to.registry.register(Box::new(metric.clone()));
    metric
}

/// Names and labels are constants of `metrics.rs`; a test there registers them all.
#[allow(
    clippy::expect_used,
    reason = "a constant name that Prometheus refuses is a bug found by the first test"
)]
pub(super) fn declared<T>(metric: prometheus::Result<T>) -> T {
    metric.expect("metric names and labels are valid constants")
}

pub(super) fn counter(name: &str, help: &str) -> IntCounter {
    declared(IntCounter::new(name, help))
}

pub(super) fn gauge(name: &str, help: &str) -> IntGauge {
    declared(IntGauge::new(name, help))
}

pub(super) fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    declared(IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    declared(IntGaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn numbers(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    declared(GaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn times(name: &str, help: &str, label: &'static str) -> TimesVec {
    declared(TimesVec::new(name, help, label))
}

pub(super) fn histograms(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    declared(HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        labels,
    ))
}
