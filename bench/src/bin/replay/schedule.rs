//! When each request of a trace is sent: its own time, spread over the trace's step, at another rate and speed.

use std::time::Duration;

use tollgate_bench::random::Rng;

use crate::trace::Line;

/// One request and when it is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// After the start, on our clock.
    pub(crate) due: Duration,
    pub(crate) line: Line,
}

/// How a trace is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Arrivals come so many times as often as in the trace: more load.
    pub(crate) rate: f64,
    /// All time goes so many times as fast: the same load in less time.
    pub(crate) speed: f64,
    /// Each request comes up to so many milliseconds of the trace later.
    pub(crate) jitter: f64,
    pub(crate) seed: u64,
}

/// The first `limit` requests in the order in which they come.
pub(crate) fn schedule(lines: Vec<Line>, pace: Pace, limit: usize) -> Vec<Arrival> {
    let mut rng = Rng::new(pace.seed);
    let mut arrivals: Vec<Arrival> = lines
        .into_iter()
        .map(|line| {
            let millis = line.timestamp + rng.share() * pace.jitter;
            let seconds = millis / 1000.0 / pace.rate / pace.speed;
            let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            Arrival { due, line }
        })
        .collect();
    arrivals.sort_by_key(|arrival| arrival.due);
    arrivals.truncate(limit);
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let line = |k| Line {
            timestamp: 3000.0 * f64::from(k / 10),
            input_length: 1,
            output_length: 1,
            hash_ids: vec![0],
        };
        (0..100).map(line).collect()
    }

    const PACE: Pace = Pace {
        rate: 1.0,
        speed: 1.0,
        jitter: 0.0,
        seed: 1,
    };

    fn times(pace: Pace, limit: usize) -> Vec<f64> {
        let arrivals = schedule(lines(), pace, limit);
        arrivals.iter().map(|a| a.due.as_secs_f64()).collect()
    }

    #[test]
    fn rate_and_speed_bring_requests_closer() {
        assert_eq!(times(PACE, 100).last(), Some(&27.0));
        let pace = Pace {
            rate: 1.5,
            speed: 20.0,
            ..PACE
        };
        let last = times(pace, 100).last().copied().unwrap_or_default();
        assert!((last - 0.9).abs() < 1e-6, "{last}");
    }

    #[test]
    fn jitter_spreads_a_step_and_follows_the_seed() {
        let pace = Pace {
            jitter: 3000.0,
            ..PACE
        };
        let spread = times(pace, 100);
        assert_eq!(spread, times(pace, 100));
        assert_ne!(spread, times(Pace { seed: 2, ..pace }, 100));
        assert!(spread.is_sorted());
        // All ten of each step are still in it, and not together.
        for step in 0..10 {
            let within = |time: &&f64| (**time / 3.0).floor() as usize == step;
            assert_eq!(spread.iter().filter(within).count(), 10);
        }
        assert!(spread.windows(2).all(|pair| pair.first() != pair.last()));
    }

    #[test]
    fn the_first_requests_are_those_that_come_first() {
        let all = times(PACE, 100);
        assert_eq!(times(PACE, 30), all.get(..30).unwrap_or_default());
    }
}
