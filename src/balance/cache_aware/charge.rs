//! What one request owes its target: the work it brings until its first byte comes, and what its answer then teaches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cost::prefill;
use super::place::{Place, usual};
use crate::model;

/// Prompts with less to compute say little about how fast a target is.
const TELLING: f64 = 1024.0;

/// Held by the guard of a pick. Dropped before the first byte, it leaves nothing behind: neither pending work nor blocks that
/// were never computed.
#[derive(Debug)]
pub(in crate::balance) struct Charge {
    pub(super) place: Arc<Place>,
    /// The upstream's places, to compare with.
    pub(super) all: Arc<[Arc<Place>]>,
    pub(super) settings: Arc<model::CacheAware>,
    pub(super) micros: Arc<AtomicU64>,
    pub(super) blocks: Arc<[u64]>,
    /// The request's number in the index.
    pub(super) number: u32,
    /// Length of the prompt, in bytes.
    pub(super) bytes: usize,
    /// Tokens it was expected to have cached.
    pub(super) matched: f64,
    /// Whether nothing was before it.
    pub(super) calm: bool,
    pub(super) answered: bool,
}

/// What an answer told of its prompt, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Computed {
    /// The prompt's length.
    pub tokens: u64,
    /// How much of it was cached; 0 also where the engine does not report it.
    pub cached: u64,
    /// How long the first token took, where the answer was a stream and so tells.
    pub first_token: Option<Duration>,
}

impl Charge {
    /// The prompt is computed.
    pub(in crate::balance) fn first_byte(&mut self) {
        self.answered = true;
        self.place.release(&self.micros);
    }

    /// Learns from the answer.
    pub(in crate::balance) fn learn(&self, computed: Computed) {
        let tokens = computed.tokens as f64;
        let caches = &self.place.caches;
        caches.tokens.learn(self.bytes, computed.tokens);
        // Of an engine that never reports cached tokens none is heard.
        let reports = computed.cached > 0 || caches.reported.load(Ordering::Relaxed) > 0;
        let matched = self.matched.min(tokens);
        if reports {
            let off = matched - computed.cached as f64;
            let add = |to: &AtomicU64, tokens: f64| {
                to.fetch_add(tokens as u64, Ordering::Relaxed);
            };
            add(&caches.foretold, matched);
            add(&caches.reported, computed.cached as f64);
            add(&caches.missed, off.abs());
            // Siblings under way at the same time may not have found what we foretold.
            if self.calm {
                let slack = (tokens * 0.1).max(256.0);
                self.place.held(matched, computed.cached as f64, slack);
            }
        }
        let cached = match reports {
            true => computed.cached as f64,
            false => matched,
        };
        let uncached = tokens - cached;
        if let (Some(took), true, true) = (computed.first_token, self.calm, uncached >= TELLING) {
            let attention = prefill(&self.settings, f64::INFINITY, uncached, tokens);
            let pace = (took.as_secs_f64() - attention) / uncached;
            let start = 1.0 / f64::from(self.settings.prefill_rate.max(1));
            self.place.computed(pace, usual(&self.all).unwrap_or(start));
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.place.release(&self.micros);
        if !self.answered && !self.blocks.is_empty() {
            let mut index = self.place.caches.index();
            index.undo(self.place.number, &self.blocks, self.number);
        }
    }
}
