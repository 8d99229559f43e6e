//! Streamed answers, event by event.
//!
//! `Events` only renders bytes: what opens a stream, one token, what closes it. When each is sent, and
//! what goes wrong on the way, is decided in `exchange`.

use std::ops::Range;

use memchr::memmem;

use super::counters::Endpoint;
use super::reply::{Facts, append_opening, append_output_item, append_usage, render_response};
use super::text::{append_id, append_number};

/// The single events of a piece of a stream.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = memmem::find(bytes, b"\n\n").map_or(bytes.len(), |at| at + 2);
        let (event, rest) = bytes.split_at_checked(end)?;
        bytes = rest;
        (!event.is_empty()).then_some(event)
    })
}

/// Renders the events of one streamed answer.
#[derive(Debug)]
pub(super) struct Events<'a> {
    endpoint: Endpoint,
    facts: Facts<'a>,
    /// The part of a token's event before its text, where it never changes.
    before: Vec<u8>,
    sequence: usize,
}

const AFTER_CHAT: &[u8] = b"\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n";
const AFTER_COMPLETION: &[u8] =
    b"\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null,\"token_ids\":null}],\"usage\":null}\n\n";

impl<'a> Events<'a> {
    pub(super) fn new(endpoint: Endpoint, facts: Facts<'a>) -> Self {
        let mut before = b"data: ".to_vec();
        match endpoint {
            Endpoint::Chat => {
                append_opening("chatcmpl-", "chat.completion.chunk", &facts, &mut before);
                before.extend_from_slice(br#","choices":[{"index":0,"delta":{"content":""#);
            }
            _ => {
                append_opening("cmpl-", "text_completion", &facts, &mut before);
                before.extend_from_slice(br#","choices":[{"index":0,"text":""#);
            }
        }
        Self {
            endpoint,
            facts,
            before,
            sequence: 0,
        }
    }

    /// What comes before the first token. Written as one event per element of the API's protocol.
    pub(super) fn append_opening(&mut self, out: &mut Vec<u8>) {
        match self.endpoint {
            Endpoint::Chat => {
                out.extend_from_slice(b"data: ");
                append_opening("chatcmpl-", "chat.completion.chunk", &self.facts, out);
                out.extend_from_slice(
                    b",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null}\n\n",
                );
            }
            Endpoint::Responses => {
                for (name, status) in [
                    ("response.created", "in_progress"),
                    ("response.in_progress", "in_progress"),
                ] {
                    self.open_event(name, out);
                    out.extend_from_slice(br#","response":"#);
                    render_response(&self.facts, status, false, out);
                    out.extend_from_slice(b"}\n\n");
                }
                self.open_event("response.output_item.added", out);
                out.extend_from_slice(br#","output_index":0,"item":{"id":"msg_"#);
                append_id(self.facts.words.fingerprint, out);
                out.extend_from_slice(
                    b"\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]}}\n\n",
                );
                self.open_item_event("response.content_part.added", out);
                out.extend_from_slice(
                    b",\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}}\n\n",
                );
            }
            _ => {}
        }
    }

    /// These tokens, as one event.
    pub(super) fn append_tokens(&mut self, tokens: Range<usize>, out: &mut Vec<u8>) {
        if self.endpoint == Endpoint::Responses {
            self.open_item_event("response.output_text.delta", out);
            out.extend_from_slice(br#","logprobs":[],"delta":""#);
            tokens.for_each(|k| self.facts.words.append_token(k, out));
            out.extend_from_slice(b"\"}\n\n");
            return;
        }
        out.extend_from_slice(&self.before);
        tokens.for_each(|k| self.facts.words.append_token(k, out));
        let chat = self.endpoint == Endpoint::Chat;
        out.extend_from_slice(if chat { AFTER_CHAT } else { AFTER_COMPLETION });
    }

    /// A token's event that breaks off in the middle of its JSON.
    pub(super) fn append_malformed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(b"\n\n");
    }

    /// What comes after the last token, up to the end of the stream.
    pub(super) fn append_closing(&mut self, with_usage: bool, out: &mut Vec<u8>) {
        let reason = self.facts.finish_reason();
        match self.endpoint {
            Endpoint::Responses => return self.append_response_closing(out),
            Endpoint::Chat => {
                out.extend_from_slice(&self.before);
                out.extend_from_slice(b"\"},\"logprobs\":null,\"finish_reason\":\"");
            }
            _ => {
                out.extend_from_slice(&self.before);
                out.extend_from_slice(b"\",\"logprobs\":null,\"finish_reason\":\"");
            }
        }
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\",\"stop_reason\":null,\"token_ids\":null}]}\n\n");
        if with_usage {
            let (prefix, object) = match self.endpoint {
                Endpoint::Chat => ("chatcmpl-", "chat.completion.chunk"),
                _ => ("cmpl-", "text_completion"),
            };
            out.extend_from_slice(b"data: ");
            append_opening(prefix, object, &self.facts, out);
            out.extend_from_slice(br#","choices":[],"usage":"#);
            append_usage(&self.facts, self.facts.tokens, out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn append_response_closing(&mut self, out: &mut Vec<u8>) {
        self.open_item_event("response.output_text.done", out);
        out.extend_from_slice(br#","logprobs":[],"text":""#);
        self.facts.words.append_all(self.facts.tokens, out);
        out.extend_from_slice(b"\"}\n\n");
        self.open_item_event("response.content_part.done", out);
        out.extend_from_slice(br#","part":{"type":"output_text","text":""#);
        self.facts.words.append_all(self.facts.tokens, out);
        out.extend_from_slice(b"\",\"annotations\":[],\"logprobs\":null}}\n\n");
        self.open_event("response.output_item.done", out);
        out.extend_from_slice(br#","output_index":0,"item":"#);
        append_output_item(&self.facts, out);
        out.extend_from_slice(b"}\n\n");
        let last = if self.facts.limited {
            "response.incomplete"
        } else {
            "response.completed"
        };
        self.open_event(last, out);
        out.extend_from_slice(br#","response":"#);
        render_response(&self.facts, "completed", true, out);
        out.extend_from_slice(b"}\n\n");
    }

    /// `event: …` and the start of its data: type and sequence number.
    fn open_event(&mut self, name: &str, out: &mut Vec<u8>) {
        for part in [
            "event: ",
            name,
            "\ndata: {\"type\":\"",
            name,
            "\",\"sequence_number\":",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        append_number(self.sequence, out);
        self.sequence += 1;
    }

    /// The same for an event about the one content part.
    fn open_item_event(&mut self, name: &str, out: &mut Vec<u8>) {
        self.open_event(name, out);
        out.extend_from_slice(br#","item_id":"msg_"#);
        append_id(self.facts.words.fingerprint, out);
        out.extend_from_slice(br#"","output_index":0,"content_index":0"#);
    }
}
