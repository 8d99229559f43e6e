//! The metrics as they are shown.

use std::collections::HashMap;

use prometheus::TextEncoder;
use prometheus::core::Collector;

use super::Metrics;
use crate::telemetry::Page;

impl Metrics {
    /// Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }

    /// The same, to go on with gauges of what is live.
    pub fn page(&self) -> Page {
        Page::after(self.render())
    }

    /// Requests being served, by service; only of services that were ever asked.
    pub fn in_flight_by_service(&self) -> HashMap<String, i64> {
        let families = self.in_flight.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let shown = series.filter_map(|series| {
            let service = series.get_label().first()?.value().to_owned();
            Some((service, series.get_gauge().get_value() as i64))
        });
        shown.collect()
    }
}
