//! How long something takes that happens several times in every exchange: a histogram in two lines of a processor's cache.
//!
//! The library's own touches seven of them and locks four words each time; this one locks two. What is read while others count may miss what
//! they are just adding, and its count is always the sum of its buckets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Upper bounds of the buckets, in nanoseconds: 10 µs, 100 µs, 1 ms, 10 ms, 100 ms, 1 s, 5 s; one more has the rest.
const BOUNDS: [u64; 7] = [
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Times of one kind.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Times {
    /// The sum of all, in nanoseconds: 584 years fit.
    nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

impl Times {
    /// It took so long once more.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs().saturating_mul(1_000_000_000);
        let nanos = seconds.saturating_add(u64::from(took.subsec_nanos()));
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        let bounds = BOUNDS.iter().map(Some).chain([None]);
        let mut buckets = self.buckets.iter().zip(bounds);
        let fits = |bound: &Option<&u64>| bound.is_none_or(|bound| nanos <= *bound);
        if let Some((bucket, _)) = buckets.find(|(_, bound)| fits(bound)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn told(&self) -> Histogram {
        let mut count = 0;
        let mut counts = self.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let buckets = { BOUNDS.iter() }.zip(&mut counts).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(Duration::from_nanos(*bound).as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut told = Histogram::default();
        told.set_bucket(buckets.collect());
        // The last one, which has the rest.
        counts.for_each(drop);
        told.set_sample_count(count);
        let nanos = self.nanos.load(Ordering::Relaxed);
        told.set_sample_sum(Duration::from_nanos(nanos).as_secs_f64());
        told
    }
}

/// A histogram with one label.
#[derive(Clone)]
pub struct TimesVec(Arc<Kinds>);

struct Kinds {
    desc: Desc,
    label: &'static str,
    /// Locked to make one and to read all.
    times: Mutex<BTreeMap<String, Arc<Times>>>,
}

impl TimesVec {
    /// # Errors
    /// The library's, of names that no metric can have.
    pub(super) fn new(name: &str, help: &str, label: &'static str) -> prometheus::Result<Self> {
        let desc = Opts::new(name, help).variable_label(label).describe()?;
        Ok(Self(Arc::new(Kinds {
            desc,
            label,
            times: Mutex::default(),
        })))
    }

    /// The times of a label's value.
    pub fn of(&self, value: &str) -> Arc<Times> {
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.entry(value.to_owned()).or_default().clone()
    }
}

impl Collector for TimesVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = times.iter().map(|(value, times)| {
            let mut label = LabelPair::default();
            label.set_name(self.0.label.to_owned());
            label.set_value(value.clone());
            let mut metric = Metric::from_label(vec![label]);
            metric.set_histogram(times.told());
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, HistogramOpts, HistogramVec, Registry, TextEncoder};

    use super::*;

    fn page(collector: impl Collector + 'static) -> String {
        let registry = Registry::new();
        registry.register(Box::new(collector)).unwrap();
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut page)
            .unwrap();
        String::from_utf8(page).unwrap()
    }

    /// On a page nobody can tell it from the library's.
    #[test]
    fn it_reads_as_the_librarys_histogram_does() {
        let ours = TimesVec::new("took_seconds", "How long it took", "plugin").unwrap();
        let seconds = |nanos: &u64| Duration::from_nanos(*nanos).as_secs_f64();
        let options = HistogramOpts::new("took_seconds", "How long it took")
            .buckets(BOUNDS.iter().map(seconds).collect());
        let theirs = HistogramVec::new(options, &["plugin"]).unwrap();
        for (plugin, nanos) in [
            ("b", 0),
            ("a", 10_000),
            ("a", 10_001),
            ("a", 1_000_000_000),
            ("a", 5_000_000_000),
            ("b", 7_500_000_000),
        ] {
            let took = Duration::from_nanos(nanos);
            ours.of(plugin).observe(took);
            let theirs = theirs.with_label_values(&[plugin]);
            theirs.observe(took.as_secs_f64());
        }
        assert_eq!(page(ours), page(theirs));
    }
}
