//! Plugins that look into bodies and change them, each by every way a body can come: short and long, in one piece and in chunks, over both
//! versions.

use serde_json::{Value, json};

use crate::harness::{CHAT, Gateway, Reply, Upstream, chunked, post, service};

/// How long the long bodies are: beyond what goes by the short road.
const LONG: usize = 120_000;

fn gateway(plugins: &str, target: &str) -> Gateway {
    let toml = format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{plugins}]\n"
    );
    Gateway::start(&(toml + &service("m", "*", target)))
}

fn plugin(name: &str, settings: &str) -> String {
    format!("{{ name = \"{name}\", settings = {{ {settings} }} }}")
}

/// Answers every request with this JSON.
fn answering(body: &Value) -> Upstream {
    let body = body.to_string();
    Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A request that says this, with so much before it.
fn saying(text: &str, padding: usize) -> Value {
    let pad = "lorem ipsum ".repeat(padding / 12);
    json!({"model": "m", "messages": [{"role": "user", "content": format!("{pad}{text}")}]})
}

/// Sends what `body` makes of a padding, by every way.
fn every_way(gateway: &Gateway, body: impl Fn(usize) -> Value) -> Vec<Reply> {
    let [short, long] = [0, LONG].map(|padding| body(padding).to_string());
    let requests = [
        post(CHAT, "", &short),
        chunked(CHAT, "", short.as_bytes(), 20),
        post(CHAT, "", &long),
        chunked(CHAT, "", long.as_bytes(), 9_000),
    ];
    let mut replies: Vec<Reply> = { requests.iter() }
        .map(|request| {
            // Some answers end the connection.
            let mut client = gateway.client();
            client.send(request);
            client.reply()
        })
        .collect();
    let h2 = gateway.h2();
    for (text, with_length) in [(&short, true), (&long, false)] {
        replies.push(h2.post(CHAT, &[], text.clone(), with_length).unwrap());
    }
    replies
}

const WAYS: usize = 6;

/// What passes goes on, what does not is refused with this, and the upstream sees only the first.
#[track_caller]
fn assert_sorted(
    plugin: &str,
    good: impl Fn(usize) -> Value,
    bad: impl Fn(usize) -> Value,
    (status, code): (u16, &str),
) -> Vec<Reply> {
    let upstream = Upstream::obliging();
    let gateway = gateway(plugin, &upstream.url());
    for reply in every_way(&gateway, &good) {
        reply.assert_ok();
    }
    let sent = upstream.requests();
    assert_eq!(sent.len(), WAYS);
    for (n, request) in sent.iter().enumerate() {
        let padding = [0, 0, LONG, LONG, 0, LONG][n];
        assert_eq!(request.body, good(padding).to_string().as_bytes(), "{n}");
        request.assert_unambiguous();
    }
    let refused = every_way(&gateway, &bad);
    for reply in &refused {
        reply.assert_refused(status, code);
        assert!(reply.complete);
    }
    assert_eq!(upstream.requests().len(), WAYS, "a refused one was sent");
    gateway.assert_gauges_zero();
    refused
}

#[test]
fn a_schema_is_kept_to() {
    let schema = "schema = { type = \"object\", required = [\"messages\"], properties = { max_tokens = { type = \"integer\", maximum = 100 }, messages = { type = \"array\", maxItems = 2 } } }";
    let with = |tokens: Value| {
        move |padding| {
            let mut body = saying("hello", padding);
            body["max_tokens"] = tokens.clone();
            body
        }
    };
    let plugin = plugin("request_validator", schema);
    for bad in [json!(101), json!("7"), json!(null)] {
        let refused = assert_sorted(
            &plugin,
            with(json!(100)),
            with(bad),
            (400, "invalid_request"),
        );
        for reply in refused {
            assert!(reply.text().contains("max_tokens"), "{}", reply.text());
        }
    }
}

#[test]
fn what_is_denied_is_not_said() {
    let plugin = plugin(
        "prompt_guard",
        "keywords = [\"project x\"], regex = [\"(?i)pass(word|phrase)\\\\s*:\"]",
    );
    let good = |padding| saying("what projects are there?", padding);
    for text in ["about Project X.", "my PASSWORD : hunter2"] {
        let bad = |padding| saying(text, padding);
        for reply in assert_sorted(&plugin, good, bad, (403, "prompt_not_allowed")) {
            let told = reply.text().to_lowercase();
            assert!(!told.contains("project x") && !told.contains("hunter2"));
        }
    }
}

#[test]
fn only_allowed_models_are_asked() {
    let plugin = plugin("model_allowlist", "models = [\"m\", \"open-*\"]");
    let of = |model: &'static str| {
        move |padding| {
            let mut body = saying("hello", padding);
            body["model"] = json!(model);
            body
        }
    };
    for (good, bad) in [("m", "mm"), ("open-1", "closed-1")] {
        assert_sorted(&plugin, of(good), of(bad), (403, "permission_denied"));
    }
}

/// Requests and answers, both changed, neither losing a byte of the rest.
#[test]
fn fields_are_changed_both_ways() {
    let answer = json!({"id": "x", "secret": 1, "choices": [{"index": 0, "message": {"content": "a".repeat(100_000)}}], "big": 18446744073709551615_u64});
    let upstream = answering(&answer);
    let plugin = plugin(
        "transform",
        "request = { rename = { max_tokens = \"max_completion_tokens\" }, remove = [\"user\"], set = { \"metadata.tenant\" = \"main\" } }, response = { remove = [\"secret\"], set = { owner = \"us\" } }",
    );
    let gateway = gateway(&plugin, &upstream.url());
    let body = |padding| {
        let mut body = saying("hello", padding);
        body["max_tokens"] = json!(7);
        body["user"] = json!("somebody");
        body["n"] = json!(1.0);
        body
    };
    let mut changed = answer;
    changed.as_object_mut().unwrap().remove("secret");
    changed["owner"] = json!("us");
    for reply in every_way(&gateway, body) {
        reply.assert_ok();
        assert_eq!(reply.json(), changed);
    }
    for (n, request) in upstream.requests().iter().enumerate() {
        let mut wanted = body([0, 0, LONG, LONG, 0, LONG][n]);
        let fields = wanted.as_object_mut().unwrap();
        fields.remove("user");
        let tokens = fields.remove("max_tokens").unwrap();
        fields.insert("max_completion_tokens".into(), tokens);
        fields.insert("metadata".into(), json!({"tenant": "main"}));
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert!(sent == wanted, "{n}: another body");
        request.assert_unambiguous();
    }
    gateway.assert_gauges_zero();
}

const CARD: &str = "4111 1111 1111 1111";
const MAIL: &str = "ada@example.com";

#[track_caller]
fn assert_masked(text: &str) {
    assert!(!text.contains("4111") && !text.contains("ada@"), "{text}");
    assert!(
        text.contains("[MASKED_CREDIT_CARD]") && text.contains("[MASKED_EMAIL]"),
        "{text}"
    );
    assert!(text.contains("the rest"), "{text}");
}

#[test]
fn requests_and_answers_are_masked() {
    let said = format!("{CARD} of {MAIL}, and the rest");
    let upstream = answering(&json!({"choices": [{"message": {"content": said}}]}));
    let gateway = gateway(&plugin("data_masking", "apply_all = true"), &upstream.url());
    for reply in every_way(&gateway, |padding| saying(&said, padding)) {
        reply.assert_ok();
        assert_masked(&reply.text());
    }
    let sent = upstream.requests();
    assert_eq!(sent.len(), WAYS);
    for request in sent {
        let text = String::from_utf8(request.body.clone()).unwrap();
        assert_masked(&text[text.len().saturating_sub(300)..]);
        assert!(!text.contains("4111"));
        request.assert_unambiguous();
    }
    gateway.assert_gauges_zero();
}

/// A stream that cuts what is to be masked into single letters.
#[test]
fn streams_are_masked_letter_by_letter() {
    let said = format!("{CARD} of {MAIL}, and the rest");
    let letters: Vec<String> = said.chars().map(String::from).collect();
    let upstream = Upstream::start(move |connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for letter in &letters {
                let event =
                    json!({"id": "1", "choices": [{"index": 0, "delta": {"content": letter}}]});
                connection.send_chunk(format!("data: {event}\n\n"));
            }
            connection.send_chunk("data: [DONE]\n\n");
            connection.send_chunk("");
        }
    });
    let gateway = gateway(&plugin("data_masking", "apply_all = true"), &upstream.url());
    let body = |padding| {
        let mut body = saying("go", padding);
        body["stream"] = json!(true);
        body
    };
    for reply in every_way(&gateway, body) {
        reply.assert_ok();
        let mut text = String::new();
        for event in reply.events() {
            let Ok(event) = serde_json::from_str::<Value>(&event) else {
                assert_eq!(event, "[DONE]");
                continue;
            };
            text += event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
        }
        assert_masked(&text);
        assert_eq!(reply.events().last().unwrap(), "[DONE]");
    }
    gateway.assert_gauges_zero();
}

/// What a masking plugin cannot read it does not let pass as clean.
#[test]
fn what_cannot_be_masked_does_not_pass() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: zstd\r\ncontent-length: 4\r\n\r\n\u{1}\u{2}\u{3}\u{4}",
    );
    let gateway = gateway(&plugin("data_masking", "apply_all = true"), &upstream.url());
    for reply in every_way(&gateway, |padding| saying("hello", padding)) {
        assert!(reply.status >= 400, "{}", reply.status);
        assert!(!reply.body.contains(&1), "{}", reply.text());
    }
    for request in upstream.requests() {
        assert_eq!(request.header("accept-encoding"), None);
    }
    gateway.assert_gauges_zero();
}
