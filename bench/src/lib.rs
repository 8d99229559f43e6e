//! What Tollgate is tested and measured with: the simulated inference engine.
//!
//! The library is used in-process, by tests and by `tollgate demo`; the programs in `src/bin` offer the
//! same from the command line, and share `answer`. Nothing here depends on the gateway.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test that panics has failed, which is what it should do"
    )
)]

#[cfg(feature = "bin")]
pub mod answer;
pub mod engine;
pub mod random;
