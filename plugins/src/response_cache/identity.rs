//! What makes two requests identical.
//!
//! It owns the list of what can change an answer. The identity is the SHA-256 of all of it: a client chooses most of what goes in, so a hash
//! whose collisions can be made would let one client put its answer under another's request, and a keyed one would stand or
//! fall with its key. Every part goes in with its length, so that nothing can move from one part to the next.

use http::header::{ACCEPT, AsHeaderName, CONTENT_TYPE, HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use tollgate_sdk::plugin::Exchange;

use super::ResponseCache;
use crate::headers::CREDENTIALS;

/// What identical requests have in common.
pub(super) type Identity = [u8; 32];

/// The identity of a request.
pub(super) fn of(x: &Exchange<'_>, settings: &ResponseCache) -> Identity {
    let request = &x.request;
    let mut parts = Parts(Sha256::new());
    parts.text(request.gateway);
    parts.optional(request.service);
    // The host and the model may choose a service that is not known yet.
    parts.text(request.host());
    parts.optional(request.model);
    parts.text(request.method.as_str());
    parts.text(request.path());
    parts.optional(request.query());
    for name in [&CONTENT_TYPE, &ACCEPT].into_iter().chain(&settings.vary) {
        parts.text(name.as_str());
        parts.header(&sent(x, name), name);
    }
    match (settings.shared, request.principal) {
        (true, _) => parts.text("all"),
        (false, Some(principal)) => {
            parts.text("key");
            parts.text(&principal.id);
        }
        (false, None) => {
            parts.text("credentials");
            for name in CREDENTIALS {
                parts.header(request.headers, name);
            }
        }
    }
    parts.bytes(x.body);
    parts.0.finalize().into()
}

/// A header as the upstream gets it: earlier plugins may have changed it.
fn sent(x: &Exchange<'_>, name: &HeaderName) -> HeaderMap {
    let mut values = HeaderMap::new();
    for value in x.request.headers.get_all(name) {
        values.append(name.clone(), value.clone());
    }
    let edits = x.edits.request_headers.iter();
    for (_, edit) in edits.filter(|(edited, _)| edited == name) {
        edit.clone().apply(name.clone(), &mut values);
    }
    values
}

struct Parts(Sha256);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    fn header(&mut self, headers: &HeaderMap, name: impl AsHeaderName) {
        let values = headers.get_all(name);
        let count = values.iter().count() as u64;
        self.0.update(count.to_be_bytes());
        values.iter().for_each(|value| self.bytes(value.as_bytes()));
    }
}
