//! How long the modelled work takes: computing a prompt, and a token of a batch.
//!
//! Only arithmetic over the configuration; what waits is in `prefill` and `generate`. The compression of time
//! (`EngineConfig::speed`) is worked in here once, before an engine starts, so that nobody else knows of it.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use super::config::EngineConfig;

/// The configuration with its compression worked in, or every setting that no model can have.
pub(super) fn compressed(mut config: EngineConfig) -> Result<EngineConfig> {
    let mut wrong = Vec::new();
    if !(config.speed.is_finite() && config.speed > 0.0) {
        wrong.push(format!("speed: {} is not above 0", config.speed));
    }
    let shares = [
        ("prefill_quadratic", config.prefill_quadratic),
        ("batch_slowdown", config.batch_slowdown),
    ];
    for (name, value) in shares {
        if !(0.0..=1e3).contains(&value) {
            wrong.push(format!("{name}: {value} is not between 0 and 1000"));
        }
    }
    if !wrong.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, wrong.join("; ")));
    }
    let speed = config.speed;
    let shorter = |time: Duration| seconds(time.as_secs_f64() / speed);
    (config.ttft, config.itl) = (shorter(config.ttft), shorter(config.itl));
    if config.prefill_rate > 0 {
        // At least one a second: none would mean that prompts take no time.
        config.prefill_rate = ((config.prefill_rate as f64 * speed).round() as u64).max(1);
    }
    config.prefill_quadratic /= speed;
    config.speed = 1.0;
    Ok(config)
}

/// The time to compute `uncached` tokens at the end of a prompt of `total`: a part in proportion, and attention
/// of each new token over what stands before it. None at all without `prefill_rate`.
pub(super) fn prefill(config: &EngineConfig, uncached: usize, total: usize) -> Duration {
    if config.prefill_rate == 0 {
        return Duration::ZERO;
    }
    let (uncached, total) = (uncached as f64, total as f64);
    let attention = uncached * (total - uncached / 2.0);
    seconds(uncached / config.prefill_rate as f64 + config.prefill_quadratic * attention)
}

/// The time between two tokens of a reply while so many requests run.
pub(super) fn token(config: &EngineConfig, running: i64) -> Duration {
    let growth = 1.0 + config.batch_slowdown * running.max(0) as f64;
    seconds(config.itl.as_secs_f64() * growth)
}

/// What is longer than a year is a year, so that clocks can still be added to.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 31_536_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> EngineConfig {
        EngineConfig {
            prefill_rate: 8000,
            prefill_quadratic: 2.5e-9,
            itl: Duration::from_millis(30),
            batch_slowdown: 0.02,
            ..EngineConfig::default()
        }
    }

    fn near(time: Duration, wanted: f64) {
        assert!((time.as_secs_f64() - wanted).abs() < 1e-6, "{time:?}");
    }

    #[test]
    fn a_prompt_takes_its_tokens_and_their_attention() {
        near(prefill(&model(), 8000, 8000), 1.08);
        // The same work at the end of a longer prompt looks back further.
        near(prefill(&model(), 8000, 100_000), 1.0 + 1.92);
        near(prefill(&model(), 0, 100_000), 0.0);
        near(prefill(&EngineConfig::default(), 8000, 8000), 0.0);
    }

    #[test]
    fn a_larger_batch_is_slower() {
        near(token(&model(), 0), 0.030);
        near(token(&model(), 10), 0.036);
        near(token(&model(), -1), 0.030);
    }

    #[test]
    fn compression_shortens_everything_alike() {
        let fast = compressed(EngineConfig {
            speed: 20.0,
            ttft: Duration::from_millis(100),
            ..model()
        })
        .unwrap();
        near(prefill(&fast, 8000, 100_000), 2.92 / 20.0);
        near(token(&fast, 10), 0.036 / 20.0);
        near(fast.ttft, 0.005);
        let slow = compressed(EngineConfig {
            speed: 1e-9,
            ..model()
        });
        assert_eq!(slow.unwrap().prefill_rate, 1);
    }

    #[test]
    fn impossible_models_are_refused_with_all_that_is_wrong() {
        let error = compressed(EngineConfig {
            speed: 0.0,
            batch_slowdown: f64::NAN,
            ..model()
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("speed") && error.contains("batch_slowdown"),
            "{error}"
        );
        assert!(!error.contains("quadratic"), "{error}");
    }
}
