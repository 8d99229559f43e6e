//! What the API answers when nothing goes wrong, and how it refuses.

use serde_json::{Value, json};

use super::*;

fn event(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_chat_answer_has_words_and_usage() {
    let engine = plain();
    let reply = Client::new(&engine).post(CHAT, "", &chat("hello"));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "m");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text.split_whitespace().count(), 16);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    // "user\nhello\nassistant\n" is 21 bytes.
    assert_eq!(answer["usage"]["prompt_tokens"], 6);
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert_eq!(answer["usage"]["total_tokens"], 22);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(engine.state().finished, 1);
}

#[test]
fn the_slow_way_answers_what_the_fast_way_does() {
    let (fast, slow) = (plain(), engine(|config| config.cache_blocks = 64));
    for (path, body) in [
        (CHAT, chat("x")),
        ("/v1/completions", r#"{"prompt":"a"}"#.to_owned()),
    ] {
        let strip = |engine: &Engine| {
            let mut answer = Client::new(engine).post(path, "", &body).json();
            answer.as_object_mut().unwrap().remove("created");
            answer
        };
        assert_eq!(strip(&fast), strip(&slow));
    }
}

#[test]
fn limits_cut_the_reply() {
    let engine = plain();
    for name in ["max_tokens", "max_completion_tokens"] {
        let body = json!({"messages": [], name: 3}).to_string();
        let answer = Client::new(&engine).post(CHAT, "", &body).json();
        assert_eq!(answer["usage"]["completion_tokens"], 3);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
}

#[test]
fn a_stream_ends_with_usage_and_done() {
    let engine = plain();
    let reply = Client::new(&engine).post(CHAT, "", &streamed(5));
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    // Role, five tokens, finish, usage, done: each event in a chunk of its own.
    assert_eq!(reply.chunks.len(), 9);
    let events = reply.events();
    assert_eq!(events.len(), 9);
    assert_eq!(events[8], "[DONE]");
    let usage = event(&events[7]);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 5);
    assert_eq!(event(&events[6])["choices"][0]["finish_reason"], "length");
    let text: String = events[..7]
        .iter()
        .map(|text| {
            event(text)["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let body = json!({"model": "m", "max_tokens": 5,
                      "messages": [{"role": "user", "content": "go"}]});
    let whole = Client::new(&engine)
        .post(CHAT, "", &body.to_string())
        .json();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    assert_eq!(whole["id"], usage["id"]);
}

#[test]
fn a_stream_without_include_usage_has_none() {
    let engine = plain();
    let body = r#"{"stream":true,"max_tokens":2,"prompt":"x"}"#;
    let events = Client::new(&engine)
        .post("/v1/completions", "", body)
        .events();
    assert_eq!(events.len(), 4);
    assert!(
        events[..3]
            .iter()
            .all(|text| event(text)["usage"].is_null())
    );
    assert_eq!(event(&events[0])["object"], "text_completion");
}

#[test]
fn responses_stream_by_event_name() {
    let engine = plain();
    let body = r#"{"stream":true,"model":"m","max_output_tokens":2,"input":"hi"}"#;
    let reply = Client::new(&engine).post("/v1/responses", "", body);
    let text = String::from_utf8(reply.body.clone()).unwrap();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(names, expected);
    for (k, (data, name)) in reply.events().iter().zip(expected).enumerate() {
        let data = event(data);
        assert_eq!(data["type"], name);
        assert_eq!(data["sequence_number"], k);
    }
    let body = r#"{"model":"m","input":[{"role":"user","content":"hi"}]}"#;
    let whole = Client::new(&engine).post("/v1/responses", "", body).json();
    assert_eq!(whole["status"], "completed");
    assert_eq!(whole["usage"]["output_tokens"], 16);
    assert_eq!(whole["output"][0]["content"][0]["type"], "output_text");
}

#[test]
fn embeddings_are_numbers_or_base64() {
    let engine = engine(|config| config.embedding_size = 4);
    let body = r#"{"model":"m","input":["a","b"]}"#;
    let answer = Client::new(&engine).post("/v1/embeddings", "", body).json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["data"][1]["embedding"].as_array().unwrap().len(), 4);
    let body = r#"{"model":"m","input":"a","encoding_format":"base64"}"#;
    let answer = Client::new(&engine).post("/v1/embeddings", "", body).json();
    // Sixteen bytes.
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 24);
}

#[test]
fn models_are_listed_and_others_refused() {
    let engine = engine(|config| config.models = vec!["org/a".into(), "b\"c".into()]);
    let mut client = Client::new(&engine);
    let list = client.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "org/a");
    assert_eq!(list["data"][1]["id"], "b\"c");
    assert_eq!(client.get("/v1/models/org/a").json()["id"], "org/a");
    assert_eq!(client.get("/v1/models/org%2Fa").json()["id"], "org/a");
    assert_eq!(client.get("/v1/models/none").status, 404);
    let refused = client.post(CHAT, "", r#"{"model":"none","messages":[]}"#);
    assert_eq!(refused.status, 404);
    let error = refused.json();
    assert_eq!(
        error["error"]["message"],
        "The model `none` does not exist."
    );
    assert_eq!(error["error"]["code"], 404);
    assert_eq!(
        client
            .post(CHAT, "", r#"{"model":"b\"c","messages":[]}"#)
            .json()["model"],
        "b\"c"
    );
}

#[test]
fn wrong_requests_are_refused_in_openai_shape() {
    let engine = plain();
    let mut client = Client::new(&engine);
    for (path, body) in [
        (CHAT, "{"),
        (CHAT, "{}"),
        (CHAT, r#"{"messages":[],"max_tokens":0}"#),
        ("/v1/completions", r#"{"messages":[]}"#),
        ("/v1/embeddings", "[]"),
    ] {
        let reply = client.post(path, "", body);
        assert_eq!(reply.status, 400, "{path} {body}");
        assert_eq!(reply.json()["error"]["type"], "BadRequestError");
    }
    assert_eq!(client.get(CHAT).status, 405);
    assert_eq!(client.post("/health", "", "").header("allow"), Some("GET"));
    assert_eq!(client.get("/nothing").status, 404);
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(engine.state().started, 7);
}

#[test]
fn the_same_seed_and_request_give_the_same_bytes() {
    let answer = |seed: u64, content: &str| {
        let engine = engine(|config| config.seed = seed);
        let answer = Client::new(&engine).post(CHAT, "", &chat(content)).json();
        (
            answer["id"].clone(),
            answer["choices"][0]["message"]["content"].clone(),
        )
    };
    assert_eq!(answer(1, "a"), answer(1, "a"));
    assert_ne!(answer(1, "a"), answer(2, "a"));
    assert_ne!(answer(1, "a"), answer(1, "b"));
}

#[test]
fn metrics_have_vllm_names() {
    let engine = engine(|config| {
        config.models = vec!["m".into()];
        config.cache_blocks = 32;
    });
    let mut client = Client::new(&engine);
    client.post(CHAT, "", &streamed(4));
    let reply = client.get("/metrics");
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 4.0",
        "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 5.0",
        "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 5.0",
        "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 0.0",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 1.0",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(text.contains("num_gpu_blocks=\"32\""));
    assert!(text.contains(
        "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"+Inf\"} 1.0"
    ));
}
