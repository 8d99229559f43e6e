//! `headers`: headers of requests and answers, set, added and removed.
//!
//! It owns no meaning of them, but refuses in its settings those that frame a message, which are the gateway's alone. Of one
//! table, removals come first, then what is set, then what is added.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::plugin::{Builds, Built, Exchange, HeaderEdit, Host, Plugin, Stage, Step};

document! {
    /// Headers of requests and answers: removed, then set, then added.
    pub struct Headers (checked) {
        /// Of requests, as upstreams get them.
        request: HeaderChanges = HeaderChanges::default(),
        /// Of answers, as clients get them.
        response: HeaderChanges = HeaderChanges::default(),
    }
}

document! {
    /// Changes to the headers of one direction.
    pub struct HeaderChanges (default checked) {
        /// Headers that have this value and no other.
        set: Vec<(HeaderName, HeaderValue)> = Vec::new(),
        /// Headers that have this value beside those they have.
        add: Vec<(HeaderName, HeaderValue)> = Vec::new(),
        /// Headers that are taken out.
        #[example = ["X-Internal"]]
        remove: Vec<HeaderName> = Vec::new(),
    }
}

/// Headers that say where a message ends or belong to one connection.
pub(crate) const FRAMING: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
];

/// Headers of requests that carry credentials.
pub(crate) const CREDENTIALS: [&str; 5] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
];

impl Headers {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if node.entry("request").is_none() && node.entry("response").is_none() {
            let help =
                "add `request` or `response`, for example: request = { set = { X-Team = \"a\" } }";
            r.error(node.span, at, "no header is changed", help);
        }
        self
    }
}

impl HeaderChanges {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let framing = |name: &str| FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own));
        let message = "this header frames the message and is the gateway's alone";
        for table in ["set", "add"] {
            let at = at.field(table);
            let entries = node.entry(table).and_then(Node::as_table);
            for (key, _) in entries.unwrap_or_default() {
                if framing(&key.text) {
                    r.error(key.span, &at.field(&key.text), message, "take it out");
                }
            }
        }
        let at = at.field("remove");
        let names = node.entry("remove").and_then(Node::as_list);
        for (index, name) in names.unwrap_or_default().iter().enumerate() {
            if name.as_str().is_some_and(framing) {
                r.error(name.span, &at.index(index), message, "take it out");
            }
        }
        self
    }

    fn edits(&self) -> Vec<(HeaderName, HeaderEdit)> {
        let pair = |(name, value): &(HeaderName, HeaderValue), edit: fn(HeaderValue) -> _| {
            (name.clone(), edit(value.clone()))
        };
        let removed = self
            .remove
            .iter()
            .map(|name| (name.clone(), HeaderEdit::Remove));
        let set = self.set.iter().map(|entry| pair(entry, HeaderEdit::Set));
        let added = self.add.iter().map(|entry| pair(entry, HeaderEdit::Add));
        removed.chain(set).chain(added).collect()
    }
}

impl Builds for Headers {
    const NAME: &'static str = "headers";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Changes {
            request: self.request.edits(),
            response: self.response.edits(),
        })
    }
}

/// Both lists are left with the exchange at its beginning, so that answers of the gateway's own get their part too.
struct Changes {
    request: Vec<(HeaderName, HeaderEdit)>,
    response: Vec<(HeaderName, HeaderEdit)>,
}

impl Plugin for Changes {
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        x.edits.request_headers.extend_from_slice(&self.request);
        x.edits.response_headers.extend_from_slice(&self.response);
        Step::PASS
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers.get_all(name).iter().map(|v| v.as_bytes()).collect()
    }

    #[test]
    fn requests_and_answers_are_changed_each_by_its_own() {
        let headers = plugin(
            "headers",
            json!({
                "request": {"set": {"X-Team": "a"}, "add": {"X-Tag": "new"}, "remove": ["X-Secret", "X-Again"]},
                "response": {"set": {"Server": "t"}, "add": {"X-Again": "1"}, "remove": ["X-Again"]},
            }),
        );
        let mut call = Call::get()
            .header("x-team", "theirs")
            .header("x-team", "second")
            .header("x-tag", "old")
            .header("x-secret", "s");
        assert_eq!(call.pre_request(&headers), Ok(()));
        let sent = call.sent_headers();
        assert_eq!(values(&sent, "x-team"), [b"a"]);
        assert_eq!(values(&sent, "x-tag"), [b"old", b"new"]);
        assert!(values(&sent, "x-secret").is_empty());
        let mut upstream = HeaderMap::new();
        upstream.insert("server", "vllm".parse().unwrap());
        upstream.insert("x-again", "0".parse().unwrap());
        let answered = call.answered_headers(upstream);
        assert_eq!(values(&answered, "server"), [b"t"]);
        assert_eq!(values(&answered, "x-again"), [b"1"]);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems(
            "headers",
            json!({
                "request": {"set": {"Content-Length": "1", "a b": "x"}, "remove": ["Transfer-Encoding"]},
                "response": {"add": {"X": "line\nbreak"}},
            }),
        );
        let text = told.join("\n");
        for part in [
            "request.set.Content-Length: this header frames the message",
            "request.set.a b: not a header name",
            "request.remove[0]: this header frames",
            "response.add.X: not a header value",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(
            !text.contains("break\""),
            "values may be credentials: {text}"
        );
        assert!(
            problems("headers", json!({}))
                .concat()
                .contains("no header is changed")
        );
    }
}
