//! Does a feature work, end to end?

mod access_log;
mod addresses;
mod admin;
mod balancing;
mod bodies;
mod chains;
mod cli;
mod credentials;
mod demo;
mod examples;
mod headers;
mod hosts;
mod keys;
mod large_bodies;
mod limits;
mod models;
mod passthrough;
mod plugins;
mod rate_limits;
mod refusals;
mod rules;
mod sdk;
mod streaming;
mod targets;
mod usage;
mod weights;
