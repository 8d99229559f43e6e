//! The model of an engine: the line for prefill, what the cache has when a turn comes, batches, compressed time.

use super::*;

/// 104 tokens with the template.
fn prompt() -> String {
    chat(&"p".repeat(400))
}

fn cached(reply: &Reply) -> u64 {
    let usage = &reply.json()["usage"];
    usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

/// An engine whose prompts take this long for 104 tokens.
fn computing(time: Duration, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    engine(|config| {
        config.cache_blocks = 1000;
        config.prefill_rate = (104.0 / time.as_secs_f64()) as u64;
        change(config);
    })
}

#[test]
fn whoever_waits_behind_the_same_prompt_finds_it_computed() {
    let engine = computing(Duration::from_millis(300), |_| ());
    let (mut first, mut second) = (Client::new(&engine), Client::new(&engine));
    first.send_post(CHAT, "", &prompt());
    eventually(&engine, |state| state.running == 1);
    second.send_post(CHAT, "", &prompt());
    let state = eventually(&engine, |state| state.waiting == 1);
    assert_eq!((state.running, state.waiting), (1, 1));
    let page = engine.metrics();
    assert!(page.contains("vllm:num_requests_running{engine=\"0\",model_name=\"sim-model\"} 1"));
    assert!(page.contains("vllm:num_requests_waiting{engine=\"0\",model_name=\"sim-model\"} 1"));
    assert_eq!(cached(&first.reply().unwrap()), 0);
    assert_eq!(cached(&second.reply().unwrap()), 96);
    let state = eventually(&engine, |state| state.running == 0 && state.waiting == 0);
    // 104 tokens, then 8: what is counted is the model's time, not the clock's.
    assert!(
        (state.prefill_seconds - 0.3 * 112.0 / 104.0).abs() < 0.01,
        "{state:?}"
    );
}

#[test]
fn a_prompt_that_was_not_computed_to_its_end_is_not_found() {
    let engine = computing(Duration::from_millis(400), |_| ());
    let (mut first, mut second) = (Client::new(&engine), Client::new(&engine));
    first.send_post(CHAT, "", &prompt());
    eventually(&engine, |state| state.running == 1);
    second.send_post(CHAT, "", &prompt());
    eventually(&engine, |state| state.waiting == 1);
    drop(first);
    assert_eq!(cached(&second.reply().unwrap()), 0);
    assert_eq!(cached(&Client::new(&engine).post(CHAT, "", &prompt())), 96);
    assert_eq!(engine.state().aborted, 1);
}

#[test]
fn a_full_batch_lets_nobody_be_computed() {
    let engine = computing(Duration::from_millis(10), |config| config.max_running = 1);
    let mut running = Client::new(&engine);
    running.send_post(CHAT, "x-sim: ttft=30s", &prompt());
    eventually(&engine, |state| state.running == 1);
    let mut waiting: Vec<Client> = (0..2)
        .map(|k| {
            let mut client = Client::new(&engine);
            client.send_post(CHAT, "", &chat("x"));
            eventually(&engine, |state| state.waiting == k + 1);
            client
        })
        .collect();
    drop(running);
    for client in &mut waiting {
        assert_eq!(client.reply().unwrap().status, 200);
    }
}

#[test]
fn tokens_come_several_to_an_event_and_say_the_same() {
    let text = |interval| {
        let engine = engine(|config| config.stream_interval = interval);
        let reply = Client::new(&engine).post(CHAT, "", &streamed(10));
        let mut contents: Vec<String> = Vec::new();
        for event in reply.events() {
            let Ok(event) = serde_json::from_str::<Value>(&event) else {
                continue;
            };
            let content = event["choices"][0]["delta"]["content"].as_str();
            contents.extend(content.filter(|text| !text.is_empty()).map(str::to_owned));
        }
        (contents.len(), contents.concat(), engine.state())
    };
    let (each, one, _) = text(1);
    let (few, same, state) = text(4);
    // One, four, four, one.
    assert_eq!((each, few), (10, 4));
    assert_eq!((one, 10), (same, state.generated_tokens));
    assert_eq!(text(0).0, 10);
}

#[test]
fn a_fault_strikes_after_its_token_although_events_hold_several() {
    let engine = engine(|config| config.stream_interval = 4);
    let mut client = Client::new(&engine);
    assert!(client.sim("close-after=3", &streamed(10)).is_err());
    assert_eq!(engine.state().generated_tokens, 3);
}

#[test]
fn a_batch_slows_its_tokens_down() {
    let engine = engine(|config| {
        config.itl = Duration::from_millis(10);
        config.batch_slowdown = 4.0;
    });
    let start = Instant::now();
    Client::new(&engine).post(CHAT, "", &streamed(6));
    // One request runs, so each of five gaps is 50 ms.
    assert!(start.elapsed() >= Duration::from_millis(249));
}

#[test]
fn speed_compresses_prefill_and_tokens_but_not_what_a_request_asks_for() {
    let engine = computing(Duration::from_secs(20), |config| {
        config.itl = Duration::from_secs(2);
        config.speed = 100.0;
    });
    let took = |fields: &str| {
        let start = Instant::now();
        Client::new(&engine).post(CHAT, fields, &prompt());
        start.elapsed()
    };
    // 0.2 s of prefill and fifteen gaps of 20 ms.
    let first = took("");
    assert!(first >= Duration::from_millis(480), "{first:?}");
    assert!(first < Duration::from_secs(10), "{first:?}");
    assert!(took("x-sim: ttft=300ms, tokens=1") >= Duration::from_millis(300));
}

#[test]
fn an_engine_that_cannot_be_is_refused() {
    let config = EngineConfig {
        speed: f64::NAN,
        ..EngineConfig::default()
    };
    let error = Engine::start(config).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
