//! The plugin `external`: a server of the operator's decides, changes or hears, and what it fails at is what was configured.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Connection, Gateway, Reply, Upstream, chat, chunked, closed_address, engine, padded,
    post, service, streamed, until,
};

fn external(rest: &str, url: &str, settings: &str) -> String {
    format!("{{ name = \"external\", {rest} settings = {{ url = \"{url}/check\", {settings} }} }},")
}

fn gateway(plugins: &str, target: &str) -> Gateway {
    let toml = format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{plugins}]\n"
    );
    Gateway::start(&(toml + &service("m", "*", target)))
}

/// A server that answers what is asked of it with this.
fn server(answer: impl Fn(&Value) -> Option<(u16, String)> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |connection: &mut Connection| {
        while let Some(request) = connection.request() {
            let asked = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
            let Some((status, body)) = answer(&asked) else {
                return connection.wait_closed();
            };
            connection.send(format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    })
}

/// The same body on both roads and over both versions.
fn every_way(gateway: &Gateway, body: impl Fn(usize) -> Vec<u8>) -> Vec<Reply> {
    let mut client = gateway.client();
    let requests = [
        post(CHAT, "x-team: red\r\n", body(0)),
        chunked(CHAT, "x-team: red\r\n", &body(120_000), 9_000),
    ];
    let mut replies: Vec<Reply> = { requests.iter() }
        .map(|request| {
            client.send(request);
            client.reply()
        })
        .collect();
    let h2 = gateway.h2();
    for length in [0, 120_000] {
        let fields = [("x-team", "red")];
        replies.push(h2.post(CHAT, &fields, body(length), true).unwrap());
    }
    replies
}

fn asking(model: &str, length: usize) -> Vec<u8> {
    match length {
        0 => chat(model).into_bytes(),
        _ => padded(model, length),
    }
}

#[test]
fn it_refuses_changes_and_lets_pass() {
    let upstream = Upstream::obliging();
    let decider = server(|asked| {
        let request = &asked["request"];
        assert_eq!(request["headers"], json!({"x-team": "red"}), "{asked}");
        assert_eq!(request["gateway"], "main");
        let answer = match request["body"]["model"].as_str().unwrap_or_default() {
            "refused" => {
                json!({"refuse": {"status": 402, "code": "insufficient_quota", "message": "not today"}})
            }
            "changed" => {
                let mut body = request["body"].clone();
                body["model"] = json!("other");
                json!({"body": body, "headers": {"set": {"x-decided": "yes"}, "remove": ["x-team"]}})
            }
            "forbidden" => return Some((404, String::new())),
            _ => return Some((200, String::new())),
        };
        Some((200, answer.to_string()))
    });
    let plugin = external("", &decider.url(), "send = { headers = [\"X-Team\"] }");
    let gateway = gateway(&plugin, &upstream.url());
    for reply in every_way(&gateway, |length| asking("plain", length)) {
        reply.assert_ok();
    }
    for request in upstream.requests() {
        assert_eq!(request.header("x-team").as_deref(), Some("red"));
        assert_eq!(request.header("x-decided"), None);
    }
    assert_eq!(upstream.requests().len(), 4);
    for reply in every_way(&gateway, |length| asking("refused", length)) {
        reply.assert_refused(402, "insufficient_quota");
        assert!(reply.text().contains("not today") && reply.complete);
    }
    for reply in every_way(&gateway, |length| asking("forbidden", length)) {
        reply.assert_refused(403, "permission_denied");
    }
    assert_eq!(upstream.requests().len(), 4, "a refused one was sent");
    for reply in every_way(&gateway, |length| asking("changed", length)) {
        reply.assert_ok();
    }
    assert_eq!(decider.requests().len(), 16);
    for request in &upstream.requests()[4..] {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["model"], "other");
        assert!(body["messages"][0]["content"].is_string());
        assert_eq!(request.header("x-decided").as_deref(), Some("yes"));
        assert_eq!(request.header("x-team"), None);
        request.assert_unambiguous();
    }
    gateway.assert_gauges_zero();
}

/// A server that is not there, breaks off, is broken, says nonsense, or takes too long.
#[test]
fn a_server_that_fails_refuses_or_lets_pass_as_configured() {
    let upstream = Upstream::obliging();
    let closes = Upstream::closing("");
    let breaks = server(|_| Some((500, "{}".into())));
    let babbles = server(|_| Some((200, "[1]".into())));
    let greedy = server(|_| Some((200, json!({"body": {}, "secret": 1}).to_string())));
    let hangs = server(|_| None);
    for url in [
        format!("http://{}", closed_address()),
        closes.url(),
        breaks.url(),
        babbles.url(),
        greedy.url(),
        hangs.url(),
    ] {
        for (on_failure, status) in [("refuse", 502), ("pass", 200)] {
            let settings = format!("timeout = \"300ms\", on_failure = \"{on_failure}\"");
            let gateway = gateway(&external("", &url, &settings), &upstream.url());
            let start = Instant::now();
            for reply in every_way(&gateway, |length| asking("m", length)) {
                assert_eq!(reply.status, status, "{url}: {}", reply.text());
                if status == 502 {
                    reply.assert_refused(502, "upstream_error");
                    let port = url.rsplit(':').next().unwrap();
                    assert!(!reply.text().contains(port), "{}", reply.text());
                }
            }
            assert!(start.elapsed() < Duration::from_secs(6));
            // It is no upstream: nobody's health suffers.
            let open = gateway.metrics().sum("tollgate_target_breaker_state", &[]);
            assert_eq!(open, 0.0);
            gateway.assert_gauges_zero();
        }
    }
}

/// A slow server delays the requests that ask it, and no others.
#[test]
fn a_slow_server_is_waited_for_by_who_asks_it() {
    let upstream = Upstream::obliging();
    let slow = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.pause(Duration::from_millis(600));
            connection.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let plugin = external("", &slow.url(), "");
    let toml = service("asked", "asked", &upstream.url())
        + &format!("plugins = [{plugin}]\n")
        + &service("free", "free", &upstream.url());
    let gateway = Gateway::start(&toml);
    let mut waiting = gateway.client();
    waiting.send(post(CHAT, "", chat("asked")));
    until("the server to be asked", || {
        (slow.requests().len() == 1).then_some(())
    });
    let mut other = gateway.client();
    for _ in 0..20 {
        other.chat("free", "").assert_ok();
    }
    assert_eq!(upstream.requests().len(), 20, "the slow one came first");
    waiting.reply().assert_ok();
    // Who leaves while it is asked is gone, and is not sent.
    let mut leaving = gateway.client();
    leaving.send(post(CHAT, "", chat("asked")));
    until("the server to be asked", || {
        (slow.requests().len() == 2).then_some(())
    });
    drop(leaving);
    gateway.wait_for("tollgate_requests_total", &[("code", "499")], |n| n == 1.0);
    assert_eq!(upstream.requests().len(), 21);
    gateway.assert_gauges_zero();
}

/// After the end it hears what an exchange came to, also of one that was left, broken off or refused.
#[test]
fn it_hears_how_exchanges_ended() {
    let engine = engine();
    let hearer = server(|_| Some((200, String::new())));
    let plugin = external("stage = \"post_response\",", &hearer.url(), "")
        + "{ name = \"model_allowlist\", priority = 9, settings = { models = [\"m\"] } }";
    let gateway = gateway(&plugin, &engine.url());
    let heard = |count: usize| -> Value {
        let requests = until("the end to be told", || {
            let requests = hearer.requests();
            (requests.len() == count).then_some(requests)
        });
        serde_json::from_slice(&requests[count - 1].body).unwrap()
    };
    let reply = gateway.client().chat("m", "x-request-id: first-of-all\r\n");
    reply.assert_ok();
    let told = heard(1);
    let (request, outcome) = (&told["request"], &told["outcome"]);
    assert_eq!(request["id"], "first-of-all");
    assert_eq!(request["path"], CHAT);
    assert!(request.get("body").is_none());
    let usage = reply.json()["usage"].clone();
    assert_eq!(outcome["status"], 200);
    assert_eq!(outcome["service"], "m");
    assert_eq!(outcome["model"], "m");
    assert_eq!(outcome["tokens"]["input"], usage["prompt_tokens"]);
    assert_eq!(outcome["tokens"]["output"], usage["completion_tokens"]);
    assert_eq!(outcome["tokens"]["estimated"], false);
    assert!(outcome["duration_ms"].as_f64() >= outcome["first_byte_ms"].as_f64());
    // Refused by a plugin after it.
    gateway
        .client()
        .chat("x", "")
        .assert_refused(403, "permission_denied");
    let outcome = heard(2)["outcome"].clone();
    assert_eq!(
        (&outcome["status"], &outcome["tokens"]),
        (&json!(403), &Value::Null)
    );
    // Left in the middle of a stream.
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: stall-after=4\r\n", streamed("m", 9)));
    let mut text = String::new();
    client.head().unwrap();
    while text.matches("data: ").count() < 5 {
        text += &String::from_utf8_lossy(&client.chunk().unwrap().unwrap());
    }
    drop(client);
    let outcome = heard(3)["outcome"].clone();
    assert_eq!(outcome["status"], 499);
    let wanted = json!({"output": 4, "estimated": true});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&outcome["tokens"][name], value, "{outcome}");
    }
    // Broken off by the upstream, whose status had been told.
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: close-after=2\r\n", streamed("m", 9)));
    client.reply();
    let outcome = heard(4)["outcome"].clone();
    assert_eq!(outcome["tokens"]["output"], 2, "{outcome}");
    gateway.assert_gauges_zero();
}

/// A server that hears nothing holds up nobody, and the end of the process neither.
#[test]
fn who_is_told_may_be_deaf() {
    let engine = engine();
    let deaf = server(|_| None);
    let plugin = external(
        "stage = \"post_response\",",
        &deaf.url(),
        "timeout = \"20s\"",
    );
    let gateway = gateway(&plugin, &engine.url());
    let mut client = gateway.client();
    for _ in 0..20 {
        client.chat("m", "").assert_ok();
    }
    until("some to be told", || {
        (!deaf.requests().is_empty()).then_some(())
    });
    gateway.assert_gauges_zero();
    let start = Instant::now();
    drop((client, gateway));
    assert!(start.elapsed() < Duration::from_secs(10));
}
