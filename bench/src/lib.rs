//! What Tollgate is tested and measured with: the simulated inference engine.
//!
//! The library is used in-process, by tests and by `tollgate demo`; the programs in `src/bin` offer the
//! same from the command line. Nothing here depends on the gateway.

pub mod engine;
