//! The control interface, by library and over HTTP.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::engine::text::hex;
use crate::engine::{FaultStep, Faults};

#[test]
fn a_sequence_of_statuses_is_followed() {
    let engine = plain();
    engine.set_faults(FaultStep::statuses(&[429, 429, 200]));
    let mut client = Client::new(&engine);
    let got: Vec<u16> = (0..4)
        .map(|_| client.post(CHAT, "", &chat("x")).status)
        .collect();
    assert_eq!(got, [429, 429, 200, 200]);
}

#[test]
fn faults_are_set_and_cleared_over_http() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let set = client.post(
        "/sim/faults",
        "",
        r#"{"statuses":[503,429],"retry-after":7}"#,
    );
    assert_eq!(set.json(), json!({"steps": 2}));
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(client.post(CHAT, "", &chat("x")).status, 503);
    let reply = client.post(CHAT, "", &chat("x"));
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("7"))
    );
    client.post("/sim/faults", "", r#"{"status":500,"path":"/health"}"#);
    assert_eq!(client.post(CHAT, "", &chat("x")).status, 200);
    assert_eq!(client.get("/health").status, 500);
    client.send("DELETE /sim/faults HTTP/1.1\r\nhost: sim\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 200);
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(
        client.post("/sim/faults", "", "{\"nonsense\":1}").status,
        400
    );
    assert_eq!(client.get("/sim/nothing").status, 404);
}

#[test]
fn a_header_overrides_the_plan() {
    let engine = plain();
    let faults = "status=500, retry-after=9".parse::<Faults>().unwrap();
    engine.set_faults([FaultStep::always(faults)]);
    let reply = Client::new(&engine).sim("status=503", &chat("x")).unwrap();
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("9"))
    );
    engine.clear_faults();
    assert_eq!(Client::new(&engine).post(CHAT, "", &chat("x")).status, 200);
}

#[test]
fn requests_are_recorded_when_asked() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client.post(CHAT, "", &chat("x"));
    assert!(engine.requests().is_empty());
    assert_eq!(client.post("/sim/record", "", r#"{"keep":2}"#).status, 200);
    for k in 0..3 {
        client.post(CHAT, "X-Mine: 1\r\nx-mine: 2", &chat(&k.to_string()));
    }
    let requests = engine.requests();
    assert_eq!(requests.len(), 2);
    let last = &requests[1];
    assert_eq!(
        (last.method.as_str(), last.path.as_str(), last.protocol),
        ("POST", CHAT, "HTTP/1.1")
    );
    assert_eq!(last.body_sha256, hex(&Sha256::digest(chat("2"))));
    assert_eq!(last.body_bytes, chat("2").len() as u64);
    assert!(last.headers.contains(&("X-Mine".into(), "1".into())));
    assert!(last.headers.contains(&("x-mine".into(), "2".into())));
    let listed = client.get("/sim/requests").json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[test]
fn the_state_counts_and_resets() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client.post(CHAT, "", &chat("x"));
    client.post("/v1/embeddings", "", r#"{"input":"x"}"#);
    client.get("/other");
    let state = client.get("/sim/state").json();
    assert_eq!(
        (&state["started"], &state["finished"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(
        state["paths"],
        json!({CHAT: 1, "/v1/embeddings": 1, "other": 1})
    );
    assert_eq!(state["last_abort"], Value::Null);
    client.post("/sim/reset", "", "");
    assert_eq!(engine.state().started, 0);
}

#[test]
fn a_body_is_hashed_whatever_its_size_and_framing() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let body = "0123456789abcdef".repeat(200_000);
    let digest = hex(&Sha256::digest(&body));
    let reply = client.post("/sim/hash", "X-A: b", &body).json();
    assert_eq!(
        (&reply["bytes"], &reply["sha256"]),
        (&json!(body.len()), &json!(digest))
    );
    assert_eq!(
        (&reply["headers"]["x-a"], &reply["path"]),
        (&json!("b"), &json!("/sim/hash"))
    );
    client.send("POST /sim/hash/x HTTP/1.1\r\nhost: sim\r\ntransfer-encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(70_001) {
        client.send(&format!("{:x}\r\n", piece.len()));
        client.send(std::str::from_utf8(piece).unwrap());
        client.send("\r\n");
    }
    client.send("0\r\nx-trailer: 1\r\n\r\n");
    assert_eq!(client.reply().unwrap().json()["sha256"], digest);
    let reply = client.sim("hash", &chat("x")).unwrap();
    let digest = hex(&Sha256::digest(chat("x")));
    assert_eq!(reply.header("x-sim-body-sha256"), Some(digest.as_str()));
    assert_eq!(reply.json()["object"], "chat.completion");
}
