//! What was seen, added up and scaled back to the model's time.

use std::time::Duration;

use serde::Serialize;

/// One answer, on our clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From when the request was due to its first token.
    pub(crate) first: Duration,
    /// To the end of its answer.
    pub(crate) whole: Duration,
    /// By how much it was sent late.
    pub(crate) late: Duration,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// The result of one replay: a line of JSON.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) requests: usize,
    pub(crate) failed: u64,
    /// The last one's.
    pub(crate) failure: Option<String>,
    /// On our clock.
    pub(crate) seconds: f64,
    /// Time to first token, seconds of the model.
    pub(crate) ttft: Spread,
    /// Time to the end of the answer, seconds of the model.
    pub(crate) whole: Spread,
    /// How late requests were sent, milliseconds on our clock.
    pub(crate) late_ms: Spread,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Cached tokens of all prompt tokens, 0 to 1.
    pub(crate) hit_rate: f64,
    /// The times to first token that 0 %, 1 %, … 100 % of the requests stay within.
    pub(crate) curve: Vec<f64>,
}

/// Some values in brief.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Report {
    /// Of these answers, in a replay that was `speed` times as fast as the model.
    pub(crate) fn of(samples: &[Sample], speed: f64, elapsed: Duration) -> Self {
        let values = |read: fn(&Sample) -> Duration, scale: f64| {
            let scaled = samples.iter().map(|s| read(s).as_secs_f64() * scale);
            let mut values: Vec<f64> = scaled.collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let sum = |read: fn(&Sample) -> u64| samples.iter().map(read).sum::<u64>();
        let first = values(|s| s.first, speed);
        let (prompt_tokens, cached_tokens) = (sum(|s| s.prompt_tokens), sum(|s| s.cached_tokens));
        Self {
            requests: samples.len(),
            failed: 0,
            failure: None,
            seconds: elapsed.as_secs_f64(),
            ttft: Spread::of(&first),
            whole: Spread::of(&values(|s| s.whole, speed)),
            late_ms: Spread::of(&values(|s| s.late, 1000.0)),
            prompt_tokens,
            cached_tokens,
            output_tokens: sum(|s| s.output_tokens),
            hit_rate: cached_tokens as f64 / prompt_tokens.max(1) as f64,
            curve: (0..=100).map(|percent| rank(&first, percent)).collect(),
        }
    }
}

impl Spread {
    fn of(sorted: &[f64]) -> Self {
        Self {
            mean: sorted.iter().sum::<f64>() / sorted.len().max(1) as f64,
            p50: rank(sorted, 50),
            p90: rank(sorted, 90),
            p99: rank(sorted, 99),
            max: rank(sorted, 100),
        }
    }
}

/// The value that so many percent of the sorted ones stay within.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_scaled_back_and_lateness_is_not() {
        let sample = |k: u64| Sample {
            first: Duration::from_millis(k),
            whole: Duration::from_millis(2 * k),
            late: Duration::from_millis(1),
            prompt_tokens: 100,
            cached_tokens: k % 2 * 50,
            output_tokens: 3,
        };
        let samples: Vec<Sample> = (1..=100).rev().map(sample).collect();
        let report = Report::of(&samples, 20.0, Duration::from_secs(1));
        let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-9, "{value}");
        near(report.ttft.mean, 1.01);
        near(report.ttft.p50, 1.02);
        near(report.ttft.max, 2.0);
        near(report.whole.max, 4.0);
        near(report.late_ms.mean, 1.0);
        near(report.hit_rate, 0.25);
        assert!(report.curve.is_sorted() && report.curve.len() == 101);
        assert_eq!((report.requests, report.output_tokens), (100, 300));
    }

    #[test]
    fn nothing_seen_is_nothing_and_no_division_by_zero() {
        let report = Report::of(&[], 20.0, Duration::ZERO);
        assert_eq!(report.ttft, Spread::default());
        assert!(report.hit_rate == 0.0);
    }
}
