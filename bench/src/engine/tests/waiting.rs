//! Time: tokens, queue, prefill, the cache, and clients that do not wait.

use std::net::Shutdown;

use super::*;
use crate::engine::call::Call;
use crate::engine::text::Rng;

const NOTICE: Duration = Duration::from_millis(100);

#[test]
fn tokens_come_at_their_pace() {
    let engine = engine(|config| {
        config.ttft = Duration::from_millis(40);
        config.itl = Duration::from_millis(10);
    });
    let mut client = Client::new(&engine);
    client.send_post(CHAT, "", &streamed(6));
    let start = Instant::now();
    client.head().unwrap();
    client.chunk().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(39));
    while client.chunk().unwrap().is_some() {}
    assert!(start.elapsed() >= Duration::from_millis(89));
    let start = Instant::now();
    client.post(CHAT, "x-sim: tokens=6", &chat("x"));
    assert!(start.elapsed() >= Duration::from_millis(89));
}

#[test]
fn the_queue_is_first_come_first_served() {
    let engine = engine(|config| {
        config.max_running = 1;
        config.ttft = Duration::from_millis(150);
    });
    let mut clients: Vec<Client> = Vec::new();
    for k in 0..4 {
        let mut client = Client::new(&engine);
        client.send_post(CHAT, "x-sim: stamp, tokens=1", &chat("x"));
        eventually(&engine, |state| state.running + state.waiting == k + 1);
        clients.push(client);
    }
    let state = engine.state();
    assert_eq!((state.running, state.waiting), (1, 3));
    assert!(
        engine
            .metrics()
            .contains("vllm:num_requests_waiting{engine=\"0\",model_name=\"sim-model\"} 3")
    );
    let produced: Vec<u64> = clients
        .iter_mut()
        .map(|client| {
            let answer = client.reply().unwrap().json();
            let stamp = answer["choices"][0]["message"]["content"].as_str().unwrap();
            stamp.parse().unwrap()
        })
        .collect();
    assert!(
        produced
            .windows(2)
            .all(|pair| pair[1] >= pair[0] + 149_000_000),
        "{produced:?}"
    );
    eventually(&engine, |state| {
        state.finished == 4 && state.running == 0 && state.waiting == 0
    });
}

#[test]
fn a_client_that_leaves_is_noticed_wherever_it_waits() {
    let engine = engine(|config| {
        config.max_running = 1;
        config.ttft = Duration::from_secs(30);
    });
    let leave: [fn(Client); 2] = [drop, |client| {
        client.stream.shutdown(Shutdown::Both).unwrap()
    }];
    for (k, leave) in leave.into_iter().enumerate() {
        let mut running = Client::new(&engine);
        running.send_post(CHAT, "", &streamed(3));
        eventually(&engine, |state| state.running == 1);
        let mut queued = Client::new(&engine);
        queued.send_post(CHAT, "", &chat("x"));
        eventually(&engine, |state| state.waiting == 1);

        let start = Instant::now();
        leave(queued);
        eventually(&engine, |state| state.waiting == 0);
        assert!(start.elapsed() < NOTICE, "{:?}", start.elapsed());
        let start = Instant::now();
        leave(running);
        let state = eventually(&engine, |state| state.running == 0);
        assert!(start.elapsed() < NOTICE, "{:?}", start.elapsed());
        assert_eq!(state.aborted, 2 * (k as u64 + 1));
        assert!(state.last_abort.is_some());
    }
}

#[test]
fn a_slot_of_a_client_that_left_serves_the_next() {
    let engine = engine(|config| config.max_running = 1);
    let mut holder = Client::new(&engine);
    holder.send_post(CHAT, "x-sim: ttft=30s", &chat("x"));
    eventually(&engine, |state| state.running == 1);
    let mut next = Client::new(&engine);
    next.send_post(CHAT, "", &chat("x"));
    eventually(&engine, |state| state.waiting == 1);
    drop(holder);
    assert_eq!(next.reply().unwrap().status, 200);
}

#[test]
fn a_client_that_leaves_between_tokens_is_noticed() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client.send_post(CHAT, "x-sim: itl=10s", &streamed(3));
    client.head().unwrap();
    client.chunk().unwrap();
    let start = Instant::now();
    drop(client);
    eventually(&engine, |state| state.aborted == 1 && state.running == 0);
    assert!(start.elapsed() < NOTICE);
}

#[test]
fn the_cache_finds_what_it_saw_and_forgets_the_oldest() {
    let engine = engine(|config| {
        config.cache_blocks = 80;
        config.block_size = 4;
        config.tokens = 1;
    });
    let mut client = Client::new(&engine);
    let mut cached = |letter: &str| {
        let answer = client.post(CHAT, "", &chat(&letter.repeat(400))).json();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    // "user\n" + 400 + "\nassistant\n" = 416 bytes = 104 tokens = 26 blocks; the last is recomputed.
    assert_eq!(cached("a"), 0);
    assert_eq!(cached("a"), 100);
    assert_eq!(cached("b"), 0);
    assert_eq!(cached("a"), 100);
    assert_eq!(cached("c"), 0);
    // The fourth prompt does not fit beside the others: the least recently used loses its tail.
    assert_eq!(cached("d"), 0);
    assert_eq!(cached("a"), 100);
    assert!(cached("b") < 100);
    let state = engine.state();
    assert!(state.cache_blocks <= 80 && state.cached_tokens > 300);
}

#[test]
fn the_next_turn_of_a_conversation_finds_the_reply_too() {
    let engine = engine(|config| {
        config.cache_blocks = 1000;
        config.block_size = 4;
    });
    let mut client = Client::new(&engine);
    let first = client.post(CHAT, "", &chat(&"q".repeat(100))).json();
    let reply = &first["choices"][0]["message"]["content"];
    let body = serde_json::json!({"model": "m", "messages": [
        {"role": "user", "content": "q".repeat(100)},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": "more"},
    ]});
    let usage = &client.post(CHAT, "", &body.to_string()).json()["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    let turn = 6 + 100 + 10 + reply.as_str().unwrap().len() as u64 + 1;
    assert_eq!(cached, turn / 16 * 4);
}

#[test]
fn prefill_takes_time_for_uncached_tokens_only() {
    let engine = engine(|config| {
        config.cache_blocks = 1000;
        config.prefill_rate = 400;
    });
    let mut client = Client::new(&engine);
    let mut took = || {
        let start = Instant::now();
        client.post(CHAT, "", &chat(&"p".repeat(400)));
        start.elapsed()
    };
    // 104 tokens, then 8.
    assert!(took() >= Duration::from_millis(260));
    assert!(took() < Duration::from_millis(200));
}

#[test]
fn jitter_follows_the_seed() {
    let mut times = Vec::new();
    for seed in 0..4 {
        let fingerprint = Call::read(chat("x").as_bytes()).unwrap().fingerprint(seed);
        let expected = 100.0 * (1.0 + 0.9 * Rng::new(fingerprint).centred());
        let engine = engine(|config| {
            config.seed = seed;
            config.ttft = Duration::from_millis(100);
            config.jitter = 0.9;
        });
        let start = Instant::now();
        Client::new(&engine).post(CHAT, "", &chat("x"));
        let took = start.elapsed().as_secs_f64() * 1e3;
        assert!(took >= expected, "{took} {expected}");
        times.push(expected);
    }
    times.sort_by(f64::total_cmp);
    assert!(times[3] - times[0] > 20.0, "{times:?}");
}
