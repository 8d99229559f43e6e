//! Answers in one piece, rendered straight into bytes.
//!
//! Owns the JSON of every non-streamed API answer and of errors, in vLLM's shape, and `instant`, the
//! fast path that parses and answers a plain request without waiting for anything. Streamed
//! answers are in `stream`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::call::Call;
use super::clock;
use super::config::EngineConfig;
use super::counters::{Counters, Endpoint};
use super::text::{Pool, Rng, append_id, append_json_string, append_number, base64};
use super::worker::Worker;

/// Where the words of a reply come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) pool: &'a Pool,
    pub(super) fingerprint: u64,
    /// Bytes per token, instead of a word.
    pub(super) chunk: Option<usize>,
    /// Tokens are times.
    pub(super) stamp: bool,
}

impl Words<'_> {
    /// Appends the k-th token.
    pub(super) fn append_token(&self, k: usize, out: &mut Vec<u8>) {
        let start = out.len();
        if self.stamp {
            append_number(clock::unix_nanos(), out);
        } else if self.chunk.is_none() {
            out.extend_from_slice(self.pool.token(self.fingerprint, k).as_bytes());
        }
        if let Some(size) = self.chunk {
            let end = start + size;
            if self.stamp && out.len() < end {
                out.push(b' ');
            }
            let mut at = k;
            while out.len() < end {
                out.extend_from_slice(self.pool.token(self.fingerprint, at).as_bytes());
                at += 1;
            }
            out.truncate(end);
        }
    }

    /// Appends the first `count` tokens.
    pub(super) fn append_all(&self, count: usize, out: &mut Vec<u8>) {
        if self.stamp || self.chunk.is_some() {
            (0..count).for_each(|k| self.append_token(k, out));
        } else {
            self.pool.append(self.fingerprint, count, out);
        }
    }
}

/// What every answer to one call says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) model: &'a str,
    pub(super) created: u64,
    pub(super) prompt: usize,
    pub(super) cached: usize,
    /// Tokens to produce.
    pub(super) tokens: usize,
    /// Whether the request's limit ended the reply.
    pub(super) limited: bool,
    pub(super) words: Words<'a>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        config: &'a EngineConfig,
        pool: &'a Pool,
        call: &'a Call<'_>,
        created: u64,
    ) -> Self {
        let limit = call.max_tokens().unwrap_or(usize::MAX);
        Self {
            model: call.model().unwrap_or_else(|| config.primary_model()),
            created,
            prompt: call.prompt_tokens(),
            cached: 0,
            tokens: config.tokens.min(limit),
            limited: config.tokens > limit,
            words: Words {
                pool,
                fingerprint: call.fingerprint(config.seed),
                chunk: None,
                stamp: false,
            },
        }
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        if self.limited { "length" } else { "stop" }
    }

    /// Counts a reply that was produced in full.
    pub(super) fn count(&self, counters: &Counters, took: Duration) {
        let ended = if self.limited {
            &counters.cut_short
        } else {
            &counters.stopped
        };
        ended.fetch_add(1, Relaxed);
        counters.whole_request.observe(took);
    }
}

/// A request that the API refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
    pub(super) param: Option<&'static str>,
}

/// Checks what vLLM checks before it queues a request.
pub(super) fn admit(
    config: &EngineConfig,
    endpoint: Endpoint,
    call: &Call<'_>,
) -> Result<(), Refusal> {
    if let Some(model) = call.model()
        && !config.serves(model)
    {
        let message = format!("The model `{model}` does not exist.");
        return Err(Refusal {
            status: 404,
            message,
            param: Some("model"),
        });
    }
    let (name, present) = match endpoint {
        Endpoint::Chat => ("messages", call.has_messages()),
        Endpoint::Completions => ("prompt", call.has_prompt()),
        _ => ("input", call.has_input()),
    };
    if !present {
        let message = format!("`{name}`: Field required");
        return Err(Refusal {
            status: 400,
            message,
            param: Some(name),
        });
    }
    if call.max_tokens() == Some(0) {
        let message = "max_tokens must be at least 1, got 0.".to_owned();
        return Err(Refusal {
            status: 400,
            message,
            param: Some("max_tokens"),
        });
    }
    Ok(())
}

/// Answers a plain request at once, into `out`. False when it is not that plain: it streams, is
/// wrong in some way, or is for a path that is not worth the speed.
pub(super) fn instant(
    worker: &Worker,
    endpoint: Endpoint,
    body: &[u8],
    created: u64,
    out: &mut Vec<u8>,
) -> bool {
    if !matches!(endpoint, Endpoint::Chat | Endpoint::Completions) {
        return false;
    }
    let Ok(call) = Call::read(body) else {
        return false;
    };
    let (config, counters) = (&worker.shared.config, &worker.counters);
    if call.streams() || admit(config, endpoint, &call).is_err() {
        return false;
    }
    let facts = Facts::new(config, &worker.shared.pool, &call, created);
    counters.started.fetch_add(1, Relaxed);
    counters.finished.fetch_add(1, Relaxed);
    counters.count_path(endpoint);
    counters
        .prompt_tokens
        .fetch_add(facts.prompt as u64, Relaxed);
    counters
        .generated_tokens
        .fetch_add(facts.tokens as u64, Relaxed);
    counters.first_token.observe(Duration::ZERO);
    counters
        .between_tokens
        .observe_many(Duration::ZERO, facts.tokens.saturating_sub(1));
    facts.count(counters, Duration::ZERO);
    out.clear();
    render(endpoint, &facts, out);
    true
}

/// Appends the answer to a chat, completion or responses call.
pub(super) fn render(endpoint: Endpoint, facts: &Facts<'_>, out: &mut Vec<u8>) {
    match endpoint {
        Endpoint::Chat => render_chat(facts, out),
        Endpoint::Responses => render_response(facts, "completed", true, out),
        _ => render_completion(facts, out),
    }
}

fn render_chat(facts: &Facts<'_>, out: &mut Vec<u8>) {
    append_opening("chatcmpl-", "chat.completion", facts, out);
    out.extend_from_slice(br#","choices":[{"index":0,"message":{"role":"assistant","content":""#);
    facts.words.append_all(facts.tokens, out);
    out.extend_from_slice(
        br#"","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":""#,
    );
    out.extend_from_slice(facts.finish_reason().as_bytes());
    out.extend_from_slice(
        br#"","stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null,"usage":"#,
    );
    append_usage(facts, facts.tokens, out);
    out.extend_from_slice(
        br#","prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}"#,
    );
}

fn render_completion(facts: &Facts<'_>, out: &mut Vec<u8>) {
    append_opening("cmpl-", "text_completion", facts, out);
    out.extend_from_slice(br#","choices":[{"index":0,"text":""#);
    facts.words.append_all(facts.tokens, out);
    out.extend_from_slice(br#"","logprobs":null,"finish_reason":""#);
    out.extend_from_slice(facts.finish_reason().as_bytes());
    out.extend_from_slice(
        br#"","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null}],"service_tier":null,"system_fingerprint":null,"usage":"#,
    );
    append_usage(facts, facts.tokens, out);
    out.extend_from_slice(br#","kv_transfer_params":null}"#);
}

/// Appends the response object; `whole` tells whether it holds the output yet.
pub(super) fn render_response(facts: &Facts<'_>, status: &str, whole: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":"resp_"#);
    append_id(facts.words.fingerprint, out);
    out.extend_from_slice(br#"","object":"response","created_at":"#);
    append_number(facts.created, out);
    out.extend_from_slice(br#","status":""#);
    let cut = whole && facts.limited;
    out.extend_from_slice(if cut {
        b"incomplete"
    } else {
        status.as_bytes()
    });
    let details: &[u8] = if cut {
        br#"{"reason":"max_output_tokens"}"#
    } else {
        b"null"
    };
    out.extend_from_slice(br#"","incomplete_details":"#);
    out.extend_from_slice(details);
    out.extend_from_slice(br#","error":null,"model":"#);
    append_json_string(facts.model, out);
    out.extend_from_slice(br#","output":["#);
    if whole {
        append_output_item(facts, out);
    }
    out.extend_from_slice(
        br#"],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":"#,
    );
    if whole {
        let numbers = [
            (&br#"{"input_tokens":"#[..], facts.prompt),
            (
                br#","input_tokens_details":{"cached_tokens":"#,
                facts.cached,
            ),
            (br#"},"output_tokens":"#, facts.tokens),
            (br#","output_tokens_details":{"reasoning_tokens":"#, 0),
            (br#"},"total_tokens":"#, facts.prompt + facts.tokens),
        ];
        for (label, number) in numbers {
            out.extend_from_slice(label);
            append_number(number, out);
        }
        out.push(b'}');
    } else {
        out.extend_from_slice(b"null");
    }
    out.push(b'}');
}

/// Appends the one message of a response, complete.
pub(super) fn append_output_item(facts: &Facts<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":"msg_"#);
    append_id(facts.words.fingerprint, out);
    out.extend_from_slice(
        br#"","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":""#,
    );
    facts.words.append_all(facts.tokens, out);
    out.extend_from_slice(br#"","annotations":[],"logprobs":null}]}"#);
}

/// `{"id":…,"object":…,"created":…,"model":…`, left open.
pub(super) fn append_opening(prefix: &str, object: &str, facts: &Facts<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":""#);
    out.extend_from_slice(prefix.as_bytes());
    append_id(facts.words.fingerprint, out);
    out.extend_from_slice(br#"","object":""#);
    out.extend_from_slice(object.as_bytes());
    out.extend_from_slice(br#"","created":"#);
    append_number(facts.created, out);
    out.extend_from_slice(br#","model":"#);
    append_json_string(facts.model, out);
}

/// Appends the usage object after `produced` tokens.
pub(super) fn append_usage(facts: &Facts<'_>, produced: usize, out: &mut Vec<u8>) {
    let numbers = [
        (&br#"{"prompt_tokens":"#[..], facts.prompt),
        (br#","total_tokens":"#, facts.prompt + produced),
        (br#","completion_tokens":"#, produced),
        (
            br#","prompt_tokens_details":{"cached_tokens":"#,
            facts.cached,
        ),
    ];
    for (label, number) in numbers {
        out.extend_from_slice(label);
        append_number(number, out);
    }
    out.extend_from_slice(b"}}");
}

/// The answer to an embeddings call with this many inputs.
pub(super) fn embeddings(facts: &Facts<'_>, inputs: usize, size: usize, packed: bool) -> Vec<u8> {
    let mut out = Vec::new();
    append_opening("embd-", "list", facts, &mut out);
    out.extend_from_slice(br#","data":["#);
    for index in 0..inputs {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        append_number(index, &mut out);
        out.extend_from_slice(br#","embedding":"#);
        let mut rng = Rng::new(facts.words.fingerprint.wrapping_add(index as u64));
        let numbers: Vec<f32> = (0..size).map(|_| rng.centred() as f32).collect();
        if packed {
            let bytes: Vec<u8> = numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            append_json_string(&base64(&bytes), &mut out);
        } else {
            // A list of finite numbers always serializes.
            out.extend_from_slice(&serde_json::to_vec(&numbers).unwrap_or_default());
        }
        out.push(b'}');
    }
    out.extend_from_slice(br#"],"usage":"#);
    append_usage(facts, 0, &mut out);
    out.push(b'}');
    out
}

/// The list of served models, or one of them.
pub(super) fn models(config: &EngineConfig, one: Option<&str>, created: u64) -> Option<Vec<u8>> {
    let append = |name: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"id":"#);
        append_json_string(name, out);
        out.extend_from_slice(br#","object":"model","created":"#);
        append_number(created, out);
        out.extend_from_slice(br#","owned_by":"vllm","root":"#);
        append_json_string(name, out);
        out.extend_from_slice(br#","parent":null,"max_model_len":131072}"#);
    };
    let mut out = Vec::new();
    if let Some(name) = one {
        return config.serves(name).then(|| {
            append(name, &mut out);
            out
        });
    }
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (k, name) in config.models.iter().enumerate() {
        if k > 0 {
            out.push(b',');
        }
        append(
            if name == "*" {
                config.primary_model()
            } else {
                name
            },
            &mut out,
        );
    }
    out.extend_from_slice(b"]}");
    Some(out)
}

/// An error in OpenAI's shape, with vLLM's words.
pub(super) fn error(status: u16, message: &str, param: Option<&str>) -> Vec<u8> {
    let kind = match status {
        400 => "BadRequestError",
        404 => "NotFoundError",
        413 => "RequestTooLarge",
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        500.. => "InternalServerError",
        _ => "InvalidRequestError",
    };
    let mut out = br#"{"error":{"message":"#.to_vec();
    append_json_string(message, &mut out);
    out.extend_from_slice(br#","type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","param":"#);
    match param {
        Some(param) => append_json_string(param, &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","code":"#);
    append_number(status, &mut out);
    out.extend_from_slice(b"}}");
    out
}
