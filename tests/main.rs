//! Tollgate from outside: real sockets, a gateway in this process, engines and upstreams that misbehave on demand.
//!
//! One binary, by intent: `behaviour` (does a feature work), `conformance` (does it obey the protocols), `security` (what
//! must never happen), `resilience` (what happens when others fail),
//! `reliability` (what must not be lost when they do), `documents` (files), `architecture` (the house itself).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod harness;

mod architecture;
mod behaviour;
mod conformance;
mod documents;
mod reliability;
mod resilience;
mod security;
