//! The admin APIs of other systems, as another door to our own road of change: who has scripts for them keeps these.
//!
//! Objects are kept as they were sent (`objects.rs`). A write changes one of them, converts all that belongs together by
//! [`foreign`](crate::config::foreign), before and after, and makes the difference one change of native resources (`shift.rs`). So what was changed natively
//! stays, unless a write is about that very field, and both worlds are stored in one transaction.

mod coreweave;
mod errors;
mod masks;
mod objects;
mod shift;
mod trustgate;

use std::sync::Arc;

use axum::response::Response;

use super::routes::Route;

pub(super) use errors::{Retell, reword};

/// Held while a write is made, from reading the objects on: it is decided on what it changes. One for each system.
#[derive(Clone, Default)]
pub(super) struct Desk {
    trustgate: Arc<tokio::sync::Mutex<()>>,
    coreweave: Arc<tokio::sync::Mutex<()>>,
}

/// An answer, or the one that says why not.
type Answer<T> = Result<T, Box<Response>>;

/// The pages of all of them.
pub(super) fn all() -> Vec<Route> {
    let mut all = trustgate::pages();
    all.extend(coreweave::pages());
    all
}

fn settled(answer: Answer<Response>) -> Response {
    answer.unwrap_or_else(|refused| *refused)
}
