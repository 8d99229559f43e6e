//! A duration smoothed over time, in one atomic word.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this long an old value weighs 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// Times are kept in these, so that 32 bits hold five days.
const TICK: Duration = Duration::from_micros(100);
const NOTHING: u64 = u64::MAX;

/// An exponentially weighted moving average whose weights follow time, not the number of samples, as in Finagle's
/// `PeakEwma`. Read, it fades towards zero while nothing is added: who was slow once is tried again later.
#[derive(Debug)]
pub(super) struct Smoothed {
    // Seconds as f32 in the high half, ticks since the process began in the low half.
    word: AtomicU64,
}

impl Default for Smoothed {
    fn default() -> Self {
        Smoothed {
            word: AtomicU64::new(NOTHING),
        }
    }
}

impl Smoothed {
    pub(super) fn add(&self, sample: Duration, now: Instant) {
        let now = ticks(now);
        let mut old = self.word.load(Ordering::Relaxed);
        loop {
            let value = match unpack(old) {
                None => sample.as_secs_f32(),
                Some((value, then)) => {
                    let keep = fading(then, now);
                    value * keep + sample.as_secs_f32() * (1.0 - keep)
                }
            };
            let new = u64::from(value.to_bits()) << 32 | u64::from(now);
            match self
                .word
                .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => old = current,
            }
        }
    }

    pub(super) fn value(&self, now: Instant) -> Option<Duration> {
        let (value, then) = unpack(self.word.load(Ordering::Relaxed))?;
        Duration::try_from_secs_f32(value * fading(then, ticks(now))).ok()
    }
}

fn unpack(word: u64) -> Option<(f32, u32)> {
    (word != NOTHING).then(|| (f32::from_bits((word >> 32) as u32), word as u32))
}

/// What remains of a value after this time. Threads may bring their times a little out of order.
fn fading(then: u32, now: u32) -> f32 {
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX / 2 {
        return 1.0;
    }
    (-(passed as f32) * TICK.as_secs_f32() / DECAY.as_secs_f32()).exp()
}

fn ticks(now: Instant) -> u32 {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    let beginning = *BEGINNING.get_or_init(|| now);
    (now.saturating_duration_since(beginning).as_micros() / TICK.as_micros()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_its_samples_and_fades() {
        let smoothed = Smoothed::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(smoothed.value(start), None);
        for second in 1..=100 {
            smoothed.add(Duration::from_millis(400), at(second));
        }
        let settled = smoothed.value(at(100)).unwrap().as_secs_f32();
        assert!((settled - 0.4).abs() < 0.001, "{settled}");
        for second in 101..=110 {
            smoothed.add(Duration::from_millis(100), at(second));
        }
        // After one decay time 1/e of the distance is left.
        let halfway = smoothed.value(at(110)).unwrap().as_secs_f32();
        assert!(
            (halfway - (0.1 + 0.3 / 1f32.exp())).abs() < 0.01,
            "{halfway}"
        );
        let faded = smoothed.value(at(140)).unwrap().as_secs_f32();
        assert!(faded < halfway * 0.06, "{faded}");
    }
}
