//! How fast prompts are read into blocks, in GB/s: `cargo run --release -p tollgate-sdk --example prompt_speed`.

use std::hint::black_box;
use std::time::Instant;

use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::llm::prompt::prompt;

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

fn report(name: &str, body: &str) {
    let peeked = time(|| drop(black_box(peek(black_box(body.as_bytes())))));
    let read = time(|| drop(black_box(prompt(black_box(body.as_bytes()), "m", 64))));
    let (len, blocks) = (body.len(), prompt(body.as_bytes(), "m", 64).blocks.len());
    let line = format!(
        "{name:<34} {len:>8} B  {blocks:>6} blocks  {read:>9.0} ns  {:>6.2} GB/s  (peek {:>6.2})\n",
        len as f64 / read,
        len as f64 / peeked,
    );
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn main() {
    let text = r#"The gateway reads the name of the model, finds the service and passes the request on.\nWhile the answer streams back it counts \"tokens\" and otherwise stays out of the way.\n"#;
    let turn = |role: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, text.repeat(6));
    let turns = |count: usize| vec![turn("user"); count].join(",");
    for count in [1, 16, 256] {
        let body = format!(r#"{{"messages":[{}],"model":"m"}}"#, turns(count));
        report(&format!("{count} turns"), &body);
    }
    let body = format!(r#"{{"messages":[{}],"model":"m"}}"#, turns(16));
    report(
        "16 turns, spaced",
        &body.replace(",\"", ", \"").replace("\":", "\": "),
    );
    let turned = format!(r#"{{"content":"{}","role":"user"}}"#, text.repeat(6));
    let body = format!(
        r#"{{"messages":[{}],"model":"m"}}"#,
        vec![turned; 16].join(",")
    );
    report("16 turns, content first", &body);
    let ids: Vec<_> = (0..20_000)
        .map(|i| (i * 7919 % 100_000).to_string())
        .collect();
    report(
        "20,000 token ids",
        &format!(r#"{{"prompt":[{}]}}"#, ids.join(",")),
    );
    report(
        "20,000 token ids, spaced",
        &format!(r#"{{"prompt":[{}]}}"#, ids.join(", ")),
    );
}
