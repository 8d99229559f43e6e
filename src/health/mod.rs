//! Which targets can be trusted with a request.
//!
//! Three things are known of a target, each learnt in its own way: whether it answers when asked (active
//! probes, [`watch()`]), whether the requests sent to it fail (a breaker, [`Ticket`]), and whether it told us to wait
//! (cooling). [`TargetHealth`] keeps them and sums them up as a [`Standing`]. It lives by identity, so it
//! survives every change of configuration. What the client did, and 429, never counts against a target.
//!
//! This folder decides nothing about where requests go; it only says how targets stand.

mod breaker;
mod check;
mod engine;
mod grpc;
mod kv_events;
mod request;
mod standing;
#[cfg(test)]
mod tests;
mod watch;

pub use check::Place;
pub use standing::{
    BreakerState, Failure, Report, Standing, TargetHealth, Thresholds, Ticket, Turn, least_bad,
};
pub use watch::{Group, Watched, watch};
