//! What `prompt_guard` costs on a prompt of 16 KiB that has nothing in it: with a thousand keywords, with a hundred patterns, with both.
//!
//! Run with `cargo run --release -p tollgate-plugins --example prompt_guard_speed`; a name from its list as the only argument runs just that.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use tollgate_plugins::BUILTINS;
use tollgate_sdk::document::{At, Format, Key, Node, Reading, Span, Value};
use tollgate_sdk::plugin::{
    Built, CallError, Called, Edits, Exchange, Host, Http, Request, State, Step,
};
use tollgate_sdk::quota::{Denied, Lease, Limit, Quota, Standing, Who};

struct Nothing;

const NONE: Standing = Standing {
    limit: 0,
    remaining: 0,
    reset: std::time::Duration::ZERO,
};

impl Quota for Nothing {
    fn take_at(
        &self,
        _: &Limit,
        _: &Who<'_>,
        _: u64,
        _: Instant,
        _: bool,
    ) -> Result<(Lease, Standing), Denied> {
        Err(Denied {
            standing: NONE,
            retry_after: None,
        })
    }

    fn standing(&self, _: &Limit, _: &str) -> Standing {
        NONE
    }
}

impl Http for Nothing {
    fn call(&self, _: http::Request<Bytes>, _: std::time::Duration, _: usize) -> Called {
        Box::pin(async { Err(CallError::Connect) })
    }
}

fn node(value: Value) -> Node {
    Node::new(Span::default(), value)
}

fn list(texts: &[String]) -> Node {
    let texts = texts.iter().map(|text| node(Value::String(text.clone())));
    node(Value::List(texts.collect()))
}

fn guard(keywords: &[String], regex: &[String]) -> Result<Built, Box<dyn Error>> {
    let field = |name: &str, value| {
        let key = Key {
            span: Span::default(),
            text: name.into(),
        };
        (key, value)
    };
    let settings = vec![
        field("keywords", list(keywords)),
        field("regex", list(regex)),
    ];
    let no_file = |_: &str| Err(String::new());
    let mut r = Reading::new(Format::Json, &no_file);
    let kind = { BUILTINS.iter() }.find(|kind| kind.name == "prompt_guard");
    let kind = kind.ok_or("prompt_guard is gone")?;
    let settings = (kind.read)(&node(Value::Table(settings)), &At::ROOT, &mut r);
    let host = Host {
        quota: Arc::new(Nothing),
        http: Arc::new(Nothing),
        kept: Arc::default(),
        identity: "speed".into(),
    };
    let settings = settings.filter(|_| r.problems.is_empty());
    Ok(settings.ok_or("the settings are refused")?.build(&host))
}

/// The least of many times, in microseconds.
fn least(guard: &Built, body: &Bytes) -> f64 {
    let (headers, uri) = (HeaderMap::new(), Uri::from_static("/"));
    let mut least = f64::MAX;
    for _ in 0..2000 {
        let (mut edits, mut state) = (Edits::default(), State::default());
        let mut x = Exchange {
            request: Request {
                method: &Method::POST,
                uri: &uri,
                headers: &headers,
                request_id: &HeaderValue::from_static("-"),
                at: Instant::now(),
                client: [127, 0, 0, 1].into(),
                gateway: "",
                service: None,
                principal: None,
                peek: None,
                length: body.len(),
                model: None,
            },
            body,
            edits: &mut edits,
            state: &mut state,
        };
        let begun = Instant::now();
        let passed = matches!(black_box(guard.pre_request(&mut x)), Step::Done(Ok(())));
        let took = begun.elapsed().as_secs_f64() * 1e6;
        least = if passed { least.min(took) } else { f64::NAN };
    }
    least
}

fn main() -> Result<(), Box<dyn Error>> {
    let words = [
        "the", "quick", "brown", "model", "answers", "every", "question", "about", "weather",
        "history", "and", "science", "because", "people", "asked", "politely",
    ];
    let mut text = String::new();
    for at in 0_usize.. {
        let word = words
            .get(((at * 7) % 16) ^ ((at / 16) % 16))
            .unwrap_or(&"a");
        text.push_str(word);
        text.push_str(if at % 12 == 11 { ".\n" } else { " " });
        if text.len() >= 16 << 10 {
            break;
        }
    }
    let body = serde_json::json!({"messages": [{"role": "user", "content": text}]});
    let body = Bytes::from(body.to_string());
    let keywords: Vec<_> = (1..=1000_u32)
        .map(|at| {
            let hash = at.wrapping_mul(2_654_435_761);
            let word = words.get(at as usize % 16).unwrap_or(&"a");
            format!("{word}{hash:x}")
        })
        .collect();
    let patterns = |count| -> Vec<String> {
        let keywords = keywords.iter().take(count);
        keywords
            .map(|word| format!(r"(?i)\b{word}\s+\d+"))
            .collect()
    };
    // Those above begin like words of the text; these have nothing to do with it.
    let foreign: Vec<_> = { keywords.iter() }
        .map(|word| word.chars().rev().collect())
        .collect();
    let foreign: Vec<String> = foreign;
    let only = std::env::args().nth(1);
    let half = keywords.get(500..).unwrap_or_default();
    let mut out = std::io::stdout();
    for (name, keywords, regex) in [
        ("1000 keywords", &*keywords, patterns(0)),
        ("1000 foreign keywords", &*foreign, patterns(0)),
        ("100 patterns", &[], patterns(100)),
        ("1000 patterns", &[], patterns(1000)),
        ("1000 keywords, 100 patterns", &keywords, patterns(100)),
        ("500 keywords, 500 patterns", half, patterns(500)),
    ] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let guard = guard(keywords, &regex)?;
        let took = least(&guard, &body);
        writeln!(out, "{name}: {took:.1} us for {} bytes", body.len())?;
    }
    Ok(())
}
