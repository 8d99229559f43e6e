//! The tokens of an exchange, and what they teach.

use tollgate_sdk::llm::usage::Usage;

use super::exchange::Exchange;
use crate::balance::Computed;

impl Exchange {
    /// Tokens used, and whether they are our estimate.
    pub(super) fn usage(&self) -> Option<(Usage, bool)> {
        let prompts = self.offer.as_ref().map(|o| &o.service.state.prompts);
        let prompt = || prompts.map_or(0, |prompts| prompts.tokens(self.body.len()));
        self.meter.usage(prompt)
    }

    /// The answer has ended: what it reported tells how long other prompts are.
    pub(super) fn learn(&self) {
        if let (Some((usage, false)), Some(offer)) = (self.usage(), &self.offer) {
            let prompts = &offer.service.state.prompts;
            prompts.learn(self.body.len(), usage.input);
            let Some(attempt) = &self.attempt else {
                return;
            };
            let took = self.first_byte.filter(|_| self.event_stream);
            attempt.guard.learn(Computed {
                tokens: usage.input,
                cached: usage.cached,
                first_token: took.map(|at| at.saturating_duration_since(attempt.asked)),
            });
        }
    }
}
