//! What goes over the wire on both legs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{CHAT, Gateway, Request, Upstream, WAYS, Way, decode, post, until};

const USAGE: &str = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
const PARAMS: &str = r#"{"do_remote_prefill":true,"remote_engine_id":"e-1", "remote_block_ids":[[7]],"remote_host":"10.0.0.9","remote_port":5600,"remote_request_id":"x"}"#;
/// The client's request, with what a prefill must not see.
const REQUEST: &str = r#"{"model":"m", "temperature":0.70,"messages":[{"role":"user","content":"Hi"}],"stop":["a"],"min_tokens":2,"max_tokens":9,"max_completion_tokens":8,"stream":false}"#;

fn answer(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// An engine that prefills: it also says which engine it is.
fn prefilling() -> Upstream {
    Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = match request.path() {
                "/query" => r#"{"0":{"engine_id":"engine_dp0"}}"#.to_owned(),
                _ => format!(r#"{{"choices":[], "kv_transfer_params":{PARAMS}}}"#),
            };
            connection.send(answer(&body));
        }
    })
}

/// Sends a request in this way; returns what either target was sent.
fn sent(way: &Way) -> (Vec<Request>, Request, u16) {
    let prefill = Arc::new(prefilling());
    let (theirs, waits) = (prefill.clone(), way.asks_prefill);
    let decoder = Upstream::start(move |connection| {
        while connection.request().is_some() {
            // No engine produces tokens before its prompt is computed somewhere.
            until("the prefill", || {
                let asked = theirs.requests();
                let asked = asked.iter().any(|request| request.path() != "/query");
                (asked || !waits).then_some(())
            });
            connection.send(answer(USAGE));
        }
    });
    let targets = [way.prefill(prefill.address()), decode(decoder.address())];
    let more = "api_key = \"upstream-secret\"\nheaders = { x-tenant = \"a\" }\n";
    let gateway = Gateway::start(&way.service(&targets, more, "model = \"alias\""));
    let mut client = gateway.client();
    client.send(post(CHAT, "x-request-id: r-1\r\n", REQUEST));
    let reply = client.reply();
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
    assert_eq!(reply.json()["usage"]["total_tokens"], 3);
    let asked: Vec<Request> = { prefill.requests().into_iter() }
        .filter(|request| request.path() != "/query")
        .collect();
    for request in asked.iter().chain([&decoder.last()]) {
        request.assert_unambiguous();
        assert_eq!((request.method(), request.path()), ("POST", CHAT));
        let bearer = Some("Bearer upstream-secret".to_owned());
        assert_eq!(request.header("authorization"), bearer);
        assert_eq!(request.header("x-tenant").as_deref(), Some("a"));
    }
    gateway.assert_gauges_zero();
    (asked, decoder.last(), prefill.address().port())
}

fn tree(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn text(request: &Request) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

/// The request with the alias, and behind its brace what is set.
fn decoding(set: &str) -> String {
    format!("{{{set},{}", &REQUEST[1..]).replace("\"model\":\"m\"", "\"model\":\"alias\"")
}

/// A prefill of vLLM with these parameters, byte for byte.
fn prefill(params: &str) -> String {
    format!(
        r#"{{"kv_transfer_params":{params},"max_tokens":1,"max_completion_tokens":1,"model":"alias", "temperature":0.70,"messages":[{{"role":"user","content":"Hi"}}]}}"#
    )
}

#[test]
fn sglang() {
    let (asked, decoded, port) = sent(&WAYS[0]);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body, decoded.body);
    let room = tree(&decoded)["bootstrap_room"].as_u64().unwrap();
    assert!(room < 1 << 63);
    let set =
        format!(r#""bootstrap_host":"127.0.0.1","bootstrap_port":{port},"bootstrap_room":{room}"#);
    assert_eq!(text(&decoded), decoding(&set));
}

#[test]
fn nixl() {
    let (asked, decoded, _) = sent(&WAYS[1]);
    let params = tree(&asked[0])["kv_transfer_params"].to_string();
    let expected = json!({
        "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
        "remote_block_ids": null, "remote_host": null, "remote_port": null,
    });
    assert_eq!(params, expected.to_string());
    assert_eq!(text(&asked[0]), prefill(&params));
    // What prefill answered goes on as it was written.
    let set = format!(r#""kv_transfer_params":{PARAMS}"#);
    assert_eq!(text(&decoded), decoding(&set));
    for request in [&asked[0], &decoded] {
        assert_eq!(request.header("x-request-id").as_deref(), Some("r-1"));
    }
}

#[test]
fn mooncake_in_turn() {
    let (asked, decoded, _) = sent(&WAYS[2]);
    let flags = r#"{"do_remote_decode":true,"do_remote_prefill":false}"#;
    assert_eq!(text(&asked[0]), prefill(flags));
    assert_eq!(asked[0].header("x-data-parallel-rank"), None);
    let set = format!(r#""kv_transfer_params":{PARAMS}"#);
    assert_eq!(text(&decoded), decoding(&set));
}

#[test]
fn mooncake_at_once() {
    let (asked, decoded, port) = sent(&WAYS[3]);
    let params = &tree(&asked[0])["kv_transfer_params"];
    let transfer = params["transfer_id"].as_str().unwrap();
    assert!(transfer.starts_with("xfer-r-1-1-"), "{transfer}");
    let expected = json!({
        "do_remote_decode": true, "do_remote_prefill": false, "transfer_id": transfer,
    });
    assert_eq!(*params, expected);
    assert_eq!(text(&asked[0]), prefill(&params.to_string()));
    assert_eq!(
        asked[0].header("x-data-parallel-rank").as_deref(),
        Some("0")
    );
    let expected = json!({
        "do_remote_prefill": true, "do_remote_decode": false, "transfer_id": transfer,
        "remote_bootstrap_addr": format!("http://127.0.0.1:{port}"),
        "remote_engine_id": "engine_dp0",
    });
    assert_eq!(tree(&decoded)["kv_transfer_params"], expected);
    let set = format!(
        r#""kv_transfer_params":{}"#,
        tree(&decoded)["kv_transfer_params"]
    );
    assert_eq!(text(&decoded), decoding(&set));
    for request in [&asked[0], &decoded] {
        assert_eq!(request.header("x-request-id").as_deref(), Some("r-1"));
    }
}

#[test]
fn kvt_in_turn() {
    let (asked, decoded, port) = sent(&WAYS[4]);
    assert_eq!(text(&asked[0]), prefill(r#"{"do_remote_decode":true}"#));
    let expected =
        json!({"remote_host": "127.0.0.1", "remote_port": port, "do_remote_prefill": true});
    assert_eq!(tree(&decoded)["kv_transfer_params"], expected);
    let id = asked[0].header("x-request-id").unwrap();
    assert!(id.starts_with("r-1-1-"), "{id}");
    assert_eq!(decoded.header("x-request-id"), Some(id));
}

#[test]
fn kvt_at_once() {
    let (asked, decoded, port) = sent(&WAYS[5]);
    assert!(
        asked.is_empty(),
        "the engine that decodes asks for it itself"
    );
    let expected = json!({"remote_host": "127.0.0.1", "remote_port": port});
    let set = format!(r#""kv_transfer_params":{expected}"#);
    assert_eq!(text(&decoded), decoding(&set));
}

/// A second prefill of the same client's request is another to the engines.
#[test]
fn ids_do_not_come_twice_although_the_clients_do() {
    for (way, at) in [
        (&WAYS[0], "/bootstrap_room"),
        (&WAYS[3], "/kv_transfer_params/transfer_id"),
    ] {
        let (first, second) = (sent(way).1, sent(way).1);
        let id = |request: &Request| tree(request).pointer(at).unwrap().clone();
        assert_ne!(id(&first), id(&second));
    }
}
