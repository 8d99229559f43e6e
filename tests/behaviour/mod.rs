//! Does a feature work, end to end?

mod bodies;
mod large_bodies;
mod streaming;
mod usage;
