//! Numbers that look random and follow from a seed: the engine's jitter and words, the traces and texts of a replay.
//!
//! Nothing here is meant to be hard to guess.

/// A small generator (splitmix64, Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between 0 and 1, without 1.
    pub fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between -1 and 1, without 1.
    pub fn centred(&mut self) -> f64 {
        2.0 * self.share() - 1.0
    }

    /// From `least` up to and with `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        let span = most.saturating_sub(least).saturating_add(1);
        least.saturating_add((self.share() * span as f64) as u64)
    }

    /// The time to the next of events that come `rate` times a second, one without regard to the other.
    pub fn interval(&mut self, rate: f64) -> f64 {
        -(1.0 - self.share()).ln() / rate
    }

    /// As the bell curve has it: mean 0, deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stays_in_its_bounds() {
        let mut rng = Rng::new(3);
        for _ in 0..10_000 {
            assert!((-1.0..=1.0).contains(&rng.centred()));
            assert!((2..=4).contains(&rng.between(2, 4)));
            assert!(rng.interval(5.0) >= 0.0 && rng.normal().is_finite());
        }
        assert_eq!(rng.between(7, 7), 7);
    }

    #[test]
    fn means_are_as_asked_for() {
        let mut rng = Rng::new(4);
        let mean =
            |mut draw: Box<dyn FnMut() -> f64>| (0..20_000).map(|_| draw()).sum::<f64>() / 20_000.0;
        let mut other = Rng::new(5);
        assert!((mean(Box::new(move || rng.interval(4.0))) - 0.25).abs() < 0.01);
        assert!(mean(Box::new(move || other.normal())).abs() < 0.03);
    }
}
