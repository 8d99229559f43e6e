//! What it costs to place a prompt by `cache_aware`: its chain of hashes, and the choice among targets.
//!
//! ```sh
//! cargo run --release --example placing -- [--targets 64] [--tokens 100000]
//! ```
//!
//! Times are of this thread alone, medians of as many runs as fit into a second. *All hold it*: every target's shadow has the whole
//! prompt, so that each block's holders are 64. *New*: nobody has it, and all its blocks enter the index.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::balance::{Ask, CacheAware, Policy, Prompted, Target, TargetState, Usable};
use tollgate::model;
use tollgate_sdk::llm::prompt::{Prompt, prompt};

/// Bytes of the text that stand for a token.
const BYTES_PER_TOKEN: usize = 4;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let (count, tokens) = (number("--targets", 64), number("--tokens", 100_000));
    let targets: Vec<Target> = (0..count as u64)
        .map(|id| Target {
            weight: 1,
            id,
            state: Arc::<TargetState>::default(),
        })
        .collect();
    let names = (0..count).map(|i| format!("http://engine-{i}:8000").into());
    let policy = CacheAware::new(model::CacheAware::default(), Arc::default(), names);
    let block = policy.reads_prompts().unwrap();
    let known: Vec<Vec<u8>> = (0..4).map(|seed| body(seed, tokens)).collect();
    println!(
        "{tokens} tokens, {:.0} KiB, {count} targets",
        known[0].len() as f64 / 1024.0
    );
    let mut turn = 0;
    let hashed = median(|| {
        turn += 1;
        let body = &known[turn % known.len()];
        let start = Instant::now();
        black_box(prompt(black_box(body), "model", block));
        start.elapsed()
    });
    report("its chain of hashes", hashed);

    let prompts: Vec<Prompt> = known
        .iter()
        .map(|body| prompt(body, "model", block))
        .collect();
    println!("  {} blocks", prompts[0].blocks.len());
    for only in 0..count {
        for prompt in &prompts {
            place(&policy, &targets, prompt, Some(only));
        }
    }
    let mut turn = 0;
    let held = median(|| {
        turn += 1;
        place(&policy, &targets, &prompts[turn % prompts.len()], None)
    });
    report("a choice, all hold it", held);
    let mut seed = 1_000;
    let new = median(|| {
        seed += 1;
        place(
            &policy,
            &targets,
            &prompt(&body(seed, tokens), "model", block),
            None,
        )
    });
    report("a choice, new", new);
    report(
        "chain and choice, the dearer of both",
        hashed + held.max(new),
    );
}

/// How long the choice takes; what it leaves behind is a prompt that was computed.
fn place(
    policy: &CacheAware,
    targets: &[Target],
    prompt: &Prompt,
    only: Option<usize>,
) -> Duration {
    let usable = |i: usize| match only {
        Some(only) if only != i => Usable::No,
        _ => Usable::Yes(1.0),
    };
    let ask = Ask {
        usable: &usable,
        key: None,
        prompt: Some(Prompted {
            prompt,
            streamed: true,
        }),
        patient: false,
    };
    let start = Instant::now();
    let (_, mut guard) = policy.pick(targets, black_box(&ask)).unwrap();
    let took = start.elapsed();
    guard.first_byte();
    took
}

/// A chat of several messages. Its first words are the seed's own.
fn body(seed: usize, tokens: usize) -> Vec<u8> {
    const TEXT: &str = "An engine keeps what it has computed of a prompt, and a second one that begins alike is answered sooner.\\n";
    let message = TEXT.repeat(40);
    let mut body = format!(
        r#"{{"model":"model","stream":true,"messages":[{{"role":"system","content":"{seed}"}}"#
    );
    while body.len() < tokens * BYTES_PER_TOKEN {
        body += &format!(r#",{{"role":"user","content":"{message}"}}"#);
    }
    (body + "]}").into_bytes()
}

fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 50 || start.elapsed() < Duration::from_secs(1) {
        times.push(once());
    }
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, took: Duration) {
    println!("  {what}: {:.0} us", took.as_secs_f64() * 1e6);
}

fn number(flag: &str, default: usize) -> usize {
    let mut rest = std::env::args().skip_while(|given| given != flag);
    match rest.nth(1) {
        Some(given) => given.parse().unwrap_or_else(|_| panic!("{flag} {given}")),
        None => default,
    }
}
