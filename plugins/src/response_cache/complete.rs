//! Whether an answer is whole and reports no error.
//!
//! A status of 200 was sent before a stream began, so only its events tell how it ended: `[DONE]` (completions), `message_stop`
//! (Anthropic's messages), `response.completed` (responses). Invariant: what is not known to have ended well has not.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate_sdk::llm::sse::{Event, Parser};

/// What answers and events say of how they went.
#[derive(Default, Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    error: Option<IgnoredAny>,
}

/// Whether this is all of an answer that went well: a stream of events or one document.
pub(super) fn is_whole(events: bool, body: &[u8]) -> bool {
    if !events {
        return !reports_error(body);
    }
    let (mut ended, mut failed) = (false, false);
    let read = Parser::new().push(body, |event| match end(&event) {
        Some(End::Well) => ended = true,
        Some(End::Badly) => failed = true,
        None => {}
    });
    read.is_ok() && ended && !failed
}

enum End {
    Well,
    Badly,
}

/// How the stream ends by this event, if it does.
fn end(event: &Event<'_>) -> Option<End> {
    if event.data.trim_ascii() == b"[DONE]" {
        return Some(End::Well);
    }
    // Most events hold none of these words and are not parsed.
    let words = [&b"error"[..], b"message_stop", b"response."];
    let holds = |text: &[u8]| words.iter().any(|w| memmem::find(text, w).is_some());
    if !holds(event.data) && !holds(event.event) {
        return None;
    }
    let said: Said<'_> = serde_json::from_slice(event.data).unwrap_or_default();
    let named = match event.event {
        b"" | b"message" => said.kind.as_ref().map_or(&b""[..], |kind| kind.as_bytes()),
        named => named,
    };
    match named {
        _ if said.error.is_some() => Some(End::Badly),
        b"error" | b"response.failed" | b"response.incomplete" => Some(End::Badly),
        b"message_stop" | b"response.completed" => Some(End::Well),
        _ => None,
    }
}

/// Whether a document is a JSON object with an `error` that is not null. Some engines say so with status 200.
fn reports_error(body: &[u8]) -> bool {
    memmem::find(body, b"\"error\"").is_some()
        && serde_json::from_slice(body).is_ok_and(|said: Said<'_>| said.error.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_whole_when_they_said_their_last_word() {
        for (whole, stream) in [
            (true, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n"),
            (
                true,
                "data: {\"choices\":[{\"delta\":{\"content\":\"an error\"}}]}\n\ndata:[DONE]\r\n\r\n",
            ),
            (
                true,
                "event: message_start\ndata: {}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ),
            (true, "data: {\"type\":\"message_stop\"}\n\n"),
            (
                true,
                "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"error\":null}}\n\n",
            ),
            (false, ""),
            (false, "data: {\"choices\":[]}\n\n"),
            (
                false,
                "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE] message_stop\"}}]}\n\n",
            ),
            // Cut off inside the last event.
            (false, "data: {\"choices\":[]}\n\ndata: [DONE]\n"),
            (
                false,
                "data: {\"error\":{\"message\":\"out of memory\"}}\n\ndata: [DONE]\n\n",
            ),
            (
                false,
                "event: error\ndata: {\"type\":\"error\"}\n\nevent: message_stop\ndata: {}\n\n",
            ),
            (false, "event: error\ndata: overloaded\n\ndata: [DONE]\n\n"),
            (false, "event: response.failed\ndata: {}\n\n"),
            (false, "event: response.incomplete\ndata: {}\n\n"),
        ] {
            assert_eq!(is_whole(true, stream.as_bytes()), whole, "{stream}");
        }
    }

    #[test]
    fn documents_are_whole_unless_they_report_an_error() {
        for (whole, document) in [
            (true, "{\"choices\":[{\"text\":\"\\\"error\\\"\"}]}"),
            (true, "{\"error\":null,\"output\":[{\"error\":{}}]}"),
            (true, "no JSON with \"error\""),
            (false, "{\"error\":{\"message\":\"busy\"}}"),
        ] {
            assert_eq!(is_whole(false, document.as_bytes()), whole, "{document}");
        }
    }
}
