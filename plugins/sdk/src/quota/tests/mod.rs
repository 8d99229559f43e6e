//! Limits, against what they promise: plain references, brute force, many threads, extremes.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests"
)]

mod bucket;
mod calendar;
mod carried;
mod concurrent;
mod extremes;
mod local;
mod standing;
mod window;

use std::time::Duration;

/// A generator of numbers for long runs (xorshift64*): the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % end
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}
