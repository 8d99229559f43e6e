//! The access log: one line of JSON for every exchange, and nothing in it that must not be there.

use std::path::Path;

use serde_json::Value;

use crate::harness::{CHAT, Gateway, chat, engine, engine_state, post, service, streamed, until};

/// The lines of the file, once there are this many.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let text = until("the access log", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
    });
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), count, "{text}");
    lines
}

fn start(folder: &Path, more: &str) -> (Gateway, std::path::PathBuf) {
    let path = folder.join("access.log");
    let toml = format!("[log]\naccess = \"{}\"\n{more}", path.display());
    (Gateway::start(&toml), path)
}

#[test]
fn every_exchange_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine();
    let (gateway, path) = start(folder.path(), &service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.chat("m", "x-request-id: one\r\n").assert_ok();
    client.send(post(CHAT, "x-request-id: two\r\n", streamed("m", 7)));
    client.reply().assert_ok();
    client.chat("nobody", "x-request-id: three\r\n");
    client
        .get("/v1/models", "x-request-id: four\r\n")
        .assert_ok();
    client.chat("m", "x-request-id: five\r\nx-sim: status=500\r\n");
    let lines = lines(&path, 5);
    let by_id = |id: &str| lines.iter().find(|line| line["request_id"] == id).unwrap();
    let one = by_id("one");
    assert_eq!(one["status"], 200);
    assert_eq!(one["gateway"], "main");
    assert_eq!(one["service"], "m");
    assert_eq!(one["model"], "m");
    assert_eq!(one["method"], "POST");
    assert_eq!(one["path"], CHAT);
    assert_eq!(one["client"], "127.0.0.1");
    assert_eq!(one["attempts"], 1);
    assert!(one["input_tokens"].as_u64().unwrap() > 0);
    assert!(one["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(one["time"].as_str().unwrap().starts_with("20"));
    let two = by_id("two");
    assert_eq!(
        (two["output_tokens"].as_u64(), two["estimated"].as_bool()),
        (Some(7), Some(false))
    );
    assert!(two["first_byte_ms"].as_f64().unwrap() <= two["duration_ms"].as_f64().unwrap());
    let three = by_id("three");
    assert_eq!(
        (three["status"].as_u64(), three["error"].as_str()),
        (Some(404), Some("model_not_found"))
    );
    assert_eq!(by_id("four")["status"], 200);
    assert_eq!(by_id("five")["status"], 500);
}

/// Query strings, credentials, cookies and bodies are nobody's business who reads logs.
#[test]
fn no_secret_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine();
    let more = format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"pool\"\n[[upstream]]\nname = \"pool\"\napi_key = \"s3cret-upstream\"\nheaders = {{ X-Extra = \"s3cret-extra\" }}\ntargets = [\"{}\"]\n",
        engine.url()
    );
    let (gateway, path) = start(folder.path(), &more);
    let fields = "authorization: Bearer s3cret-client\r\nx-api-key: s3cret-client\r\ncookie: s=s3cret-cookie\r\n";
    let mut client = gateway.client();
    let body = chat("m").replace("Hello", "s3cret prompt");
    client.send(post(&format!("{CHAT}?key=s3cret-query"), fields, &body));
    client.reply().assert_ok();
    client.send(post(
        &format!("{CHAT}?key=s3cret-query"),
        fields,
        "{\"model\":\"s3",
    ));
    client.reply();
    lines(&path, 2);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let metrics = gateway.admin("/metrics").text();
    assert!(!metrics.contains("s3cret"), "{metrics}");
}

#[test]
fn strange_text_stays_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine();
    let (gateway, path) = start(folder.path(), &service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.chat(r#"a\"b\n\u0000\u2028"#, "");
    client.get("/%22%0a%00\"'{}", "");
    let lines = lines(&path, 2);
    assert_eq!(lines[0]["model"], "a\"b\n\0\u{2028}");
}

#[test]
fn a_client_that_left_is_a_499_with_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine();
    let (gateway, path) = start(folder.path(), &service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send(post(
        CHAT,
        "x-sim: itl=20ms, tokens=1000\r\n",
        streamed("m", 1_000),
    ));
    client.head().unwrap();
    for _ in 0..4 {
        client.chunk().unwrap();
    }
    drop(client);
    engine_state(&engine, "the engine lets go", |state| state.aborted == 1);
    let lines = lines(&path, 1);
    assert_eq!(lines[0]["status"], 499, "{}", lines[0]);
    assert!(
        lines[0]["output_tokens"].as_u64().unwrap() >= 3,
        "{}",
        lines[0]
    );
    assert_eq!(lines[0]["estimated"], true);
}

/// Why an upstream failed is for the operator, who finds it here and not in the answer.
#[test]
fn a_failure_tells_the_operator_why() {
    let folder = tempfile::tempdir().unwrap();
    let dead = crate::harness::closed_address();
    let (gateway, path) = start(folder.path(), &service("m", "m", &format!("http://{dead}")));
    gateway
        .client()
        .chat("m", "")
        .assert_refused(502, "upstream_error");
    let lines = lines(&path, 1);
    let line = &lines[0];
    assert_eq!(line["status"], 502);
    assert_eq!(line["error"], "upstream_error");
    assert!(
        line["target"]
            .as_str()
            .unwrap()
            .contains(&dead.port().to_string()),
        "{line}"
    );
    assert!(!line["cause"].as_str().unwrap().is_empty());
}
