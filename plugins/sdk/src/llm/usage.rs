//! The tokens an answer reports: what counts as which, and how to find them in a JSON answer.
//!
//! It knows the words of OpenAI (completions, embeddings, responses) and of Anthropic (messages), not the
//! prices. An answer is never made to fail by what stands in it: anything odd just means no usage.
//! Streams are read by [`stream`](super::stream).

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Number;

use super::fault::{Fault, PeekError};
use super::scan::{Kind, Visit, Walker};

/// Bytes of a `usage` value.
const MAX_USAGE: usize = 8192;

/// Tokens of one exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, those from a cache included (also where the dialect counts them apart).
    pub input: u64,
    /// Of `input`, those read from the engine's cache.
    pub cached: u64,
    /// Generated.
    pub output: u64,
}

/// Finds the usage in a JSON answer that arrives in chunks.
#[derive(Debug)]
pub struct JsonUsage {
    /// `None` once something was odd.
    walker: Option<Walker<Member>>,
    found: Option<Usage>,
}

impl JsonUsage {
    /// Ready for the first byte.
    pub fn new() -> Self {
        Self {
            walker: Some(Walker::new(Member::default(), 0)),
            found: None,
        }
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, chunk: &[u8]) {
        if let Some(walker) = &mut self.walker {
            let failed = walker.push(chunk).is_err();
            self.found = walker.visit.found;
            if failed {
                self.walker = None;
            }
        }
    }

    /// What was found, also if the answer broke off after it.
    pub fn finish(self) -> Option<Usage> {
        self.found
    }
}

impl Default for JsonUsage {
    fn default() -> Self {
        Self::new()
    }
}

/// The member `usage` of the answer. If it is there twice, the last counts.
#[derive(Debug, Default)]
struct Member {
    found: Option<Usage>,
}

impl Visit for Member {
    fn open(&mut self, _at: usize) {}

    fn key(&mut self, key: &[u8], _at: usize) -> Result<Option<usize>, PeekError> {
        Ok((key == b"usage").then_some(MAX_USAGE))
    }

    fn start(&mut self, _kind: Kind, _at: usize) -> Result<(), PeekError> {
        Ok(())
    }

    fn value(&mut self, raw: &[u8], _at: usize) -> Result<(), PeekError> {
        let tally: Option<Tally> = serde_json::from_slice(raw).ok();
        self.found = tally.and_then(|tally| tally.usage()).or(self.found);
        Ok(())
    }

    fn too_long(&self, at: usize) -> PeekError {
        PeekError::new(at, Fault::TooLong("usage"))
    }
}

/// What `usage` objects say, in any dialect; those of one stream are added up by [`merge`](Self::merge).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tally {
    prompt_tokens: Option<Number>,
    completion_tokens: Option<Number>,
    total_tokens: Option<Number>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<Number>,
    output_tokens: Option<Number>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<Number>,
    cache_creation_input_tokens: Option<Number>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<Number>,
}

impl Tally {
    /// Lets what `later` says replace what this says.
    pub(super) fn merge(&mut self, later: Tally) {
        fn take<T>(ours: &mut Option<T>, later: Option<T>) {
            if later.is_some() {
                *ours = later;
            }
        }
        take(&mut self.prompt_tokens, later.prompt_tokens);
        take(&mut self.completion_tokens, later.completion_tokens);
        take(&mut self.total_tokens, later.total_tokens);
        take(&mut self.prompt_tokens_details, later.prompt_tokens_details);
        take(&mut self.input_tokens, later.input_tokens);
        take(&mut self.output_tokens, later.output_tokens);
        take(&mut self.input_tokens_details, later.input_tokens_details);
        take(
            &mut self.cache_read_input_tokens,
            later.cache_read_input_tokens,
        );
        take(
            &mut self.cache_creation_input_tokens,
            later.cache_creation_input_tokens,
        );
    }

    /// The sum of it; `None` if no token was mentioned.
    pub(super) fn usage(&self) -> Option<Usage> {
        let output = count(&self.completion_tokens).or(count(&self.output_tokens));
        let read = count(&self.cache_read_input_tokens);
        let written = count(&self.cache_creation_input_tokens);
        let input = count(&self.prompt_tokens).or_else(|| {
            // Anthropic counts cached tokens apart from `input_tokens`, the others within.
            let apart = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
            count(&self.input_tokens).map(|input| input.saturating_add(apart))
        });
        // Rerankers report a total only.
        let total =
            || count(&self.total_tokens).map(|total| total.saturating_sub(output.unwrap_or(0)));
        let input = input.or_else(total);
        if input.is_none() && output.is_none() {
            return None;
        }
        let details = self
            .prompt_tokens_details
            .as_ref()
            .or(self.input_tokens_details.as_ref());
        let cached = details
            .and_then(|details| count(&details.cached_tokens))
            .or(read);
        let input = input.unwrap_or(0);
        Some(Usage {
            input,
            cached: cached.unwrap_or(0).min(input),
            output: output.unwrap_or(0),
        })
    }
}

fn count(number: &Option<Number>) -> Option<u64> {
    let number = number.as_ref()?;
    number
        .as_u64()
        .or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

/// What one event of a stream may say of usage.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Option<Vec<IgnoredAny>>,
    usage: Option<Tally>,
    /// Anthropic's `message_start`.
    message: Option<Holder>,
    /// The responses API's `response.completed`.
    response: Option<Holder>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Holder {
    usage: Option<Tally>,
}

/// The usage in one event's data.
pub(super) struct Reported {
    pub(super) tally: Tally,
    /// Whether the event is there for the usage alone: `choices` is there and empty.
    pub(super) alone: bool,
}

/// Reads the usage out of one event's data.
pub(super) fn in_event(data: &[u8]) -> Option<Reported> {
    let chunk: Chunk = serde_json::from_slice(data).ok()?;
    let alone = chunk.choices.is_some_and(|choices| choices.is_empty()) && chunk.usage.is_some();
    let holder = || {
        chunk
            .message
            .or(chunk.response)
            .and_then(|holder| holder.usage)
    };
    let tally = chunk.usage.or_else(holder)?;
    Some(Reported { tally, alone })
}
