//! Tollgate: an inference gateway on Pingora.
//!
//! The folders stand in dependency order: each uses only what stands above it here. ARCHITECTURE.md is the map,
//! `proxy/mod.rs` the place to begin reading: a request passes its files from top to bottom.

pub mod telemetry;

pub mod model;

pub mod tls;

pub mod config;

pub mod store;

pub mod calls;

pub mod acme;

pub mod auth;

pub mod balance;

pub mod health;

pub mod snapshot;

pub mod control;

pub mod scale;

pub mod admin;
pub mod proxy;

pub mod server;

pub mod cli;
