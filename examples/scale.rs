//! What a large configuration costs: the time and memory to load it, a change to it, and a look-up in it.
//!
//! ```sh
//! cargo run --release --example scale -- [--gateways N] [--services N] [--targets N] [--rules N] [--keys N] [--shared]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::config::{self, Format};
use tollgate::model::Config;
use tollgate::snapshot::{Decision, Head, ModelName, Registry, Snapshot, Who, compile};
use tollgate::telemetry::Metrics;
use tollgate_sdk::plugin::NoHttp;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How much there is of everything.
#[derive(Clone, Copy)]
struct Size {
    gateways: usize,
    services: usize,
    targets: usize,
    rules: usize,
    keys: usize,
    /// Names of models and targets are the same in all gateways.
    shared: bool,
}

fn main() {
    let size = size();
    println!(
        "{} gateways x {} services x {} targets",
        size.gateways, size.services, size.targets
    );
    let before = resident();
    let text = document(size);
    println!("  file      {:8.1} MiB", text.len() as f64 / MIB);
    let start = Instant::now();
    let config = parse(&text);
    report("read and checked", start.elapsed());
    let registry = Registry::new(Arc::new(NoHttp));
    let metrics = Arc::new(Metrics::new());
    let start = Instant::now();
    let mut snapshot = compile(&config, 1, &registry, &metrics, None);
    report("compiled", start.elapsed());
    println!("  resident  {:8.1} MiB", (resident() - before) / MIB);

    let mut times = Vec::new();
    let mut config = config;
    for round in 0..20 {
        let place = round * 7919 % config.services.len();
        let mut service = (*config.services[place]).clone();
        service.weight = 100 + round as u16;
        config.services[place] = Arc::new(service);
        let start = Instant::now();
        let next = compile(&config, 2, &registry, &metrics, Some(&snapshot));
        drop(std::mem::replace(&mut snapshot, next));
        times.push(start.elapsed());
    }
    times.sort();
    report("one service changed, median", times[times.len() / 2]);
    report("one service changed, longest", times[times.len() - 1]);

    let small = alone(Size {
        gateways: 1,
        ..size
    });
    let mut ratios: Vec<(f64, f64, f64)> = (0..15)
        .map(|_| {
            let (one, many) = (
                look_ups(&small, 1, size),
                look_ups(&snapshot, size.gateways, size),
            );
            (many / one, one, many)
        })
        .collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, one, many) = ratios[ratios.len() / 2];
    println!(
        "  look-up at 1 gateway: {one:.0} ns, at {}: {many:.0} ns, ratio {ratio:.3}",
        size.gateways
    );
}

fn alone(size: Size) -> Snapshot {
    let config = parse(&document(size));
    compile(
        &config,
        1,
        &Registry::new(Arc::new(NoHttp)),
        &Arc::new(Metrics::new()),
        None,
    )
}

const ROUNDS: usize = 200_000;

/// Nanoseconds from a host and a model's name to the service, one request after another.
fn look_ups(snapshot: &Snapshot, gateways: usize, size: Size) -> f64 {
    let headers = http::HeaderMap::new();
    let asked: Vec<(String, String)> = (0..64)
        .map(|n| {
            let gateway = n * 37 % gateways;
            (host(gateway), model(gateway, n % size.services, size))
        })
        .collect();
    let start = Instant::now();
    for n in 0..ROUNDS {
        let (host, model) = &asked[n % asked.len()];
        let entry = snapshot.hosts.find(black_box(host)).unwrap();
        let gateway = snapshot.gateways[entry.gateway].clone();
        let head = Head {
            method: &http::Method::POST,
            path: "/v1/chat/completions",
            headers: &headers,
            service: entry.service,
            who: Who::Anybody,
        };
        let decision = gateway.router.decide(head, ModelName::Is(black_box(model)));
        assert!(matches!(black_box(decision), Decision::Route(_)));
    }
    start.elapsed().as_nanos() as f64 / ROUNDS as f64
}

fn host(gateway: usize) -> String {
    format!("g{gateway:04}.example.com")
}

fn model(gateway: usize, service: usize, size: Size) -> String {
    match size.shared {
        true => format!("vendor/model-{service:02}"),
        false => format!("vendor/model-{gateway:04}-{service:02}"),
    }
}

fn document(size: Size) -> String {
    let mut text = String::from("[[listener]]\naddress = \"127.0.0.1:0\"\n");
    for gateway in 0..size.gateways {
        let auth = if size.keys > 0 { "api_key" } else { "none" };
        let _ = write!(
            text,
            "[[gateway]]\nname = \"g{gateway:04}\"\nhosts = [\"{}\"]\nauth = \"{auth}\"\n",
            host(gateway)
        );
        for service in 0..size.services {
            let name = format!("g{gateway:04}-s{service:02}");
            let _ = write!(
                text,
                "[[service]]\nname = \"{name}\"\ngateways = [\"g{gateway:04}\"]\nmodels = [\"{}\"]\ntargets = [",
                model(gateway, service, size)
            );
            for target in 0..size.targets {
                let n = match size.shared {
                    true => service * size.targets + target,
                    false => (gateway * size.services + service) * size.targets + target,
                };
                let _ = write!(
                    text,
                    "\"http://10.{}.{}.{}:8000\", ",
                    n >> 16,
                    n >> 8 & 255,
                    n & 255
                );
            }
            text.push_str("]\n");
        }
        for rule in 0..size.rules {
            let _ = write!(
                text,
                "[[rule]]\nname = \"g{gateway:04}-r{rule:02}\"\ngateway = \"g{gateway:04}\"\npath = \"/tools/{rule}/*\"\nservices = [\"g{gateway:04}-s00\"]\n"
            );
        }
        for key in 0..size.keys {
            let hash = gateway * size.keys + key;
            let _ = write!(
                text,
                "[[key]]\nname = \"g{gateway:04}-k{key:02}\"\ngateway = \"g{gateway:04}\"\nhash = \"sha256:{hash:064x}\"\n"
            );
        }
    }
    text
}

fn parse(text: &str) -> Config {
    let no_file = |path: &str| Err(format!("there is no file {path}"));
    config::parse("scale", text, Format::Toml, &|_| None, &no_file)
        .unwrap()
        .config
}

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes of this process in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn report(what: &str, took: Duration) {
    println!("  {what}: {:.1} ms", took.as_secs_f64() * 1e3);
}

fn size() -> Size {
    let mut size = Size {
        gateways: 1000,
        services: 10,
        targets: 3,
        rules: 1,
        keys: 1,
        shared: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--shared" {
            size.shared = true;
            continue;
        }
        let number = words.next().unwrap().parse().unwrap();
        match word.as_str() {
            "--gateways" => size.gateways = number,
            "--services" => size.services = number,
            "--targets" => size.targets = number,
            "--rules" => size.rules = number,
            "--keys" => size.keys = number,
            _ => println!("unknown: {word}"),
        }
    }
    size
}
