//! The real thing, on engines that refuse what their protocols do not allow.

use tollgate_bench::engine::EngineRole;

use crate::harness::{
    CHAT, Gateway, WAYS, assert_nothing_held, chat, chunked, decode, engine, padded, post, service,
    streamed, until,
};

#[test]
fn requests_are_answered_as_by_one_engine() {
    let alone = engine();
    let undivided = Gateway::start(&service("m", "m", &alone.url()));
    for way in &WAYS {
        let prefill = way.engine(EngineRole::Prefill, |_| ());
        let decoder = way.engine(EngineRole::Decode, |_| ());
        let targets = [way.prefill(prefill.address()), decode(decoder.address())];
        let gateway = Gateway::start(&way.service(&targets, "", ""));
        let requests = [
            post(CHAT, "", chat("m")),
            post(CHAT, "", streamed("m", 12)),
            post(CHAT, "", padded("m", 200_000)),
            chunked(CHAT, "", streamed("m", 5).as_bytes(), 7),
            post(
                "/v1/completions",
                "",
                r#"{"model":"m","prompt":[1,2,3],"max_tokens":4}"#,
            ),
        ];
        for request in &requests {
            let what = format!(
                "{}: {}",
                way.settings,
                String::from_utf8_lossy(&request[..80])
            );
            let mut client = gateway.client();
            client.send(request);
            let reply = client.reply();
            reply.assert_ok();
            let mut client = undivided.client();
            client.send(request);
            let other = client.reply();
            assert_eq!(words(&reply.text()), words(&other.text()), "{what}");
        }
        let count = requests.len() as u64;
        let state = assert_nothing_held(&prefill);
        let ends = (state.fetched, state.freed, state.expired, state.refused);
        assert_eq!(ends, (count, 0, 0, 0), "{}", way.settings);
        assert_eq!(decoder.state().transfers.duplicates, 0);
        gateway.assert_gauges_zero();
        let labels = [("service", "m")];
        // Beside its decode a prefill may be given up when the answer is whole.
        let staged =
            way.asks_prefill && !way.settings.contains("sglang") && !way.settings.contains("false");
        let all = if staged { count as f64 } else { 0.0 };
        gateway.wait_for("tollgate_prefill_seconds_count", &labels, |n| n >= all);
        let decodes = "tollgate_decode_first_byte_seconds_count";
        gateway.wait_for(decodes, &labels, |n| n == count as f64);
        assert_eq!(
            gateway.metrics().sum("tollgate_undivided_total", &labels),
            0.0
        );
    }
}

/// The text of an answer without what each engine counts and times for itself.
fn words(answer: &str) -> Vec<String> {
    let pieces = answer
        .split("\"content\":\"")
        .chain(answer.split("\"text\":\""));
    pieces
        .skip(1)
        .filter_map(|piece| piece.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn usage_is_that_of_the_client_and_the_log_tells_both_legs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let way = &WAYS[1];
    let prefill = way.engine(EngineRole::Prefill, |_| ());
    let decoder = way.engine(EngineRole::Decode, |_| ());
    let targets = [way.prefill(prefill.address()), decode(decoder.address())];
    let log = format!("[log]\naccess = {:?}\n", file.display().to_string());
    let gateway = Gateway::start(&(log + &way.service(&targets, "", "")));
    let mut client = gateway.client();
    client.send(post(CHAT, "", streamed("m", 6)));
    let reply = client.reply();
    reply.assert_ok();
    // It was asked for, and is not the client's to see.
    assert!(!reply.text().contains("\"usage\":{"), "{}", reply.text());
    let labels = [("direction", "output")];
    gateway.wait_for("tollgate_tokens_total", &labels, |n| n == 6.0);
    let line = until("the line", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.ends_with('\n').then_some(text)
    });
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["target"], decoder.url());
    assert_eq!(line["prefill"], prefill.url());
    assert!(
        line["prefill_ms"].is_number() && line["decode_ms"].is_number(),
        "{line}"
    );
}

#[test]
fn batches_and_choices_have_a_room_for_each() {
    let way = &WAYS[0];
    let prefill = way.engine(EngineRole::Prefill, |_| ());
    let decoder = way.engine(EngineRole::Decode, |_| ());
    let targets = [way.prefill(prefill.address()), decode(decoder.address())];
    let gateway = Gateway::start(&way.service(&targets, "", ""));
    for body in [
        r#"{"model":"m","prompt":["a","b"]}"#,
        r#"{"model":"m","prompt":"a","n":3}"#,
    ] {
        gateway.client().post("/v1/completions", body).assert_ok();
    }
    assert_eq!(assert_nothing_held(&prefill).fetched, 5);
}
