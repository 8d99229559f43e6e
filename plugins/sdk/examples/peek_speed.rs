//! How fast request and answer bodies are read, in GB/s and ns a chunk:
//! `cargo run --release -p tollgate-sdk --example peek_speed [part of a name]`.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use tollgate_sdk::llm::peek::{Scanner, peek};
use tollgate_sdk::llm::prompt::prompt;
use tollgate_sdk::llm::stream::{StreamMode, StreamUsage};
use tollgate_sdk::llm::usage::JsonUsage;

/// The best of several runs, in ns a call.
fn time(mut call: impl FnMut()) -> f64 {
    let run = |call: &mut dyn FnMut()| {
        let (begin, mut calls) = (Instant::now(), 0_u32);
        while begin.elapsed().as_millis() < 60 {
            (0..16).for_each(|_| call());
            calls += 16;
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    (0..7).map(|_| run(&mut call)).fold(f64::INFINITY, f64::min)
}

/// Whether the first argument, if there is one, occurs in the name.
fn wanted(name: &str) -> bool {
    std::env::args()
        .nth(1)
        .is_none_or(|word| name.contains(&word))
}

fn report(name: &str, body: &str) {
    if !wanted(name) {
        return;
    }
    let whole = time(|| drop(black_box(peek(black_box(body.as_bytes())))));
    let pushed = time(|| {
        let mut scanner = Scanner::new();
        for chunk in black_box(body.as_bytes()).chunks(8192) {
            let _ = black_box(scanner.push(chunk));
        }
        drop(black_box(scanner.finish()));
    });
    let usage = time(|| {
        let mut usage = JsonUsage::new();
        usage.push(black_box(body.as_bytes()));
        black_box(usage.finish());
    });
    let prompt = time(|| drop(black_box(prompt(black_box(body.as_bytes()), "m", 256))));
    let len = body.len() as f64;
    let line = format!(
        "{name:<34} {:>8} B  {whole:>9.0} ns  {:>6.2} GB/s whole  {:>6.2} in 8 KiB chunks  {:>6.2} for usage  {:>6.2} for the prompt\n",
        body.len(),
        len / whole,
        len / pushed,
        len / usage,
        len / prompt,
    );
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn stream(name: &str, strip: bool, chunk: &str) {
    if !wanted(name) {
        return;
    }
    let chunk = Bytes::from(chunk.to_owned());
    let mut stream = StreamUsage::new(StreamMode { strip });
    let ns = time(|| drop(black_box(stream.push(black_box(chunk.clone())))));
    let line = format!("{name:<34} {:>8} B  {ns:>9.0} ns a chunk\n", chunk.len());
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn main() {
    let text = "The quick brown fox jumps over the lazy dog and then does it all again, a little slower now, ok.... ";
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, &text[..100]);
    let head = r#"{"model":"Qwen/Qwen3-8B","stream":true,"temperature":0.7,"max_tokens":256,"#;
    let long = text.repeat(2560);
    report(
        "300 B request",
        &format!(
            r#"{head}"messages":[{{"role":"user","content":"{}"}}]}}"#,
            &text.repeat(2)[..180]
        ),
    );
    report(
        "one long string in a message",
        &format!(r#"{head}"messages":[{{"role":"user","content":"{long}"}}]}}"#),
    );
    report(
        "one long string, top level",
        &format!(r#"{head}"prompt":"{long}"}}"#),
    );
    report(
        "16 KiB string in a message",
        &format!(r#"{head}"messages":[{{"content":"{}"}}]}}"#, &long[..16384]),
    );
    report(
        "200 messages of 100 B",
        &format!(
            r#"{head}"messages":[{}]}}"#,
            vec![message.as_str(); 200].join(",")
        ),
    );
    report(
        "200 messages, Python's spaces",
        &format!(
            r#"{head}"messages":[{}]}}"#,
            vec![message.as_str(); 200].join(", ").replace(':', ": ")
        ),
    );
    report(
        "code (a newline every 40 B)",
        &format!(
            r#"{head}"messages":[{{"content":"{}"}}]}}"#,
            r"    let number = self.take(argument)?;\n".repeat(2000)
        ),
    );
    let prose = r#"The gateway reads the name of the model.\nIt counts \"tokens\" and otherwise stays out of the way.\n"#;
    let turn = |role: &str| {
        format!(
            r#"{{"role":"{role}","content":"{}"}}"#,
            &prose.repeat(11)[..1024]
        )
    };
    let turns = [turn("user"), turn("assistant")].join(",");
    report(
        "256 turns of 1 KiB, escapes",
        &format!(r#"{head}"messages":[{}]}}"#, vec![turns; 128].join(",")),
    );
    let chinese = "今天天气很好我们一起去公园散步吧".repeat(1000);
    report(
        "Chinese in a message",
        &format!(r#"{head}"messages":[{{"content":"{chinese}"}}]}}"#),
    );
    report(
        "Chinese, top level",
        &format!(r#"{head}"prompt":"{chinese}"}}"#),
    );
    report(
        "content before role",
        &format!(
            r#"{head}"messages":[{}]}}"#,
            vec![format!(r#"{{"content":"{}","role":"user"}}"#, &long[..1024]); 16].join(",")
        ),
    );
    report(
        "token ids",
        &format!(r#"{head}"prompt":[{}]}}"#, vec!["12345"; 4000].join(",")),
    );
    let chunk = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"Qwen/Qwen3-8B","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}]}"#;
    stream("event", false, &format!("{chunk}\n\n"));
    stream("event, strip", true, &format!("{chunk}\n\n"));
    let null = chunk.replace("]}", r#"],"usage":null}"#);
    stream("event with usage null, strip", true, &format!("{null}\n\n"));
    let usage = chunk.replace(
        "]}",
        r#"],"usage":{"prompt_tokens":10,"total_tokens":20,"completion_tokens":10}}"#,
    );
    stream("event with usage, strip", true, &format!("{usage}\n\n"));
    stream("half an event", false, chunk);
}
