//! Converted documents serve as their own system would.
//!
//! A document as its users write it goes the road of `tollgate convert`, and the gateway that is started with what comes of it is
//! asked what users of that system ask. Where Tollgate does otherwise on purpose, the report must say so: that is checked, too.

mod apart;
mod coreweave;
mod dstack;
mod dstack_limits;
mod llumnix;
mod llumnix_queue;
mod trustgate;
mod trustgate_limits;
mod trustgate_rules;

use std::path::Path;

use serde_json::{Value, json};
use tollgate::config::Format;
use tollgate::config::foreign::{self, Fate, Note, Options};

use crate::harness::{CHAT, Gateway, Reply, Upstream, bearer, chat, request};

/// A document that golden files have, too, with these texts in place of others: addresses for instance.
fn document(path: &str, replaced: &[(&str, &str)]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents/foreign");
    let text = std::fs::read_to_string(folder.join(path)).unwrap();
    replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in {path}");
        text.replace(from, to)
    })
}

/// What came of some documents.
struct Conversion {
    toml: String,
    notes: Vec<Note>,
}

impl Conversion {
    /// Converts documents, each by itself as if it were a file, and has what comes of them together.
    #[track_caller]
    fn of(documents: &[&str], options: &Options) -> Conversion {
        let mut all = Conversion {
            toml: String::new(),
            notes: Vec::new(),
        };
        for text in documents {
            let format = match text.trim_start().starts_with(['{', '[']) {
                true => Format::Json,
                false => Format::Yaml,
            };
            let tree = foreign::read("document", text, format);
            let tree = tree.unwrap_or_else(|wrong| panic!("{wrong}"));
            let converted = foreign::convert(&tree, options).unwrap();
            assert_eq!(foreign::recognise(&tree), Some(converted.dialect));
            assert!(!converted.is_refused(), "{:#?}", converted.notes);
            all.toml += &converted.to_toml();
            all.notes.extend(converted.notes);
        }
        all
    }

    /// With a text of the result replaced, as whoever converts may write over an assumption.
    #[track_caller]
    fn with(mut self, from: &str, to: &str) -> Conversion {
        assert!(self.toml.contains(from), "`{from}`: {}", self.toml);
        self.toml = self.toml.replace(from, to);
        self
    }

    #[track_caller]
    fn start(&self) -> Gateway {
        Gateway::start(&self.toml)
    }

    /// With tables of one's own beside what was converted.
    #[track_caller]
    fn start_beside(&self, toml: &str) -> Gateway {
        Gateway::start(&format!("{}{toml}", self.toml))
    }

    /// The report says this of a field.
    #[track_caller]
    fn tells(&self, path: &str, fate: Fate, words: &str) {
        let told = |note: &&Note| note.path == path && note.fate == fate;
        let notes: Vec<&Note> = self.notes.iter().filter(told).collect();
        assert!(
            notes.iter().any(|note| note.message.contains(words)),
            "`{words}` is not said of `{path}`: {:#?}",
            self.notes
        );
    }
}

/// Options with where the services of some names are.
fn targets(given: &[(&str, &str)]) -> Options {
    let pair = |(name, url): &(&str, &str)| ((*name).to_owned(), (*url).to_owned());
    Options {
        targets: given.iter().map(pair).collect(),
        ..Options::default()
    }
}

/// Somebody who asks one host with the same headers every time.
struct Caller<'g> {
    gateway: &'g Gateway,
    fields: String,
}

impl<'g> Caller<'g> {
    fn new(gateway: &'g Gateway, host: &str) -> Caller<'g> {
        let fields = format!("host: {host}\r\n");
        Caller { gateway, fields }
    }

    /// With more header lines.
    fn with(mut self, fields: &str) -> Caller<'g> {
        self.fields += fields;
        self
    }

    /// With a new key of this gateway of the configuration.
    #[track_caller]
    fn with_key(self, gateway: &str) -> Caller<'g> {
        let secret = key(self.gateway, gateway);
        self.with(&bearer(&secret))
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let kind = match body.is_empty() {
            true => "",
            false => "content-type: application/json\r\n",
        };
        let fields = format!("{}{kind}", self.fields);
        let mut client = self.gateway.client();
        client.send(request(method, path, &fields, body));
        client.reply()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "")
    }

    #[track_caller]
    fn chat(&self, model: &str) -> Reply {
        self.send("POST", CHAT, &chat(model))
    }
}

/// Waits until so many targets are known to be up: before, those that were asked first would get all requests.
#[track_caller]
fn all_up(gateway: &Gateway, targets: usize) {
    gateway.wait_for("tollgate_target_up", &[], |up| up == targets as f64);
}

/// Makes a key as `tollgate key create` does; its secret.
#[track_caller]
fn key(gateway: &Gateway, of: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("key-{number}");
    gateway.api().create(&json!({"name": name, "gateway": of}))
}

/// An upstream that answers everything with its name.
fn named(name: &str) -> Upstream {
    let length = name.len();
    Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
    ))
}

/// An upstream that answers everything with this status and a word.
fn answering(status: &str) -> Upstream {
    Upstream::replying(format!(
        "HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\ntheirs"
    ))
}

/// It was answered by the upstream of this name.
#[track_caller]
fn assert_from(reply: &Reply, name: &str) {
    assert_eq!((reply.status, reply.text().as_str()), (200, name));
}

/// The address of an upstream, as documents write it in a table.
fn port(upstream: &Upstream) -> u16 {
    upstream.address().port()
}

/// What an upstream was asked for last.
#[track_caller]
fn sent_json(upstream: &Upstream) -> Value {
    serde_json::from_slice(&upstream.last().body).unwrap()
}
