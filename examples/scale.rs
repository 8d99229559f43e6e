//! What a large configuration costs: the time and memory to load it, a change to it, a look-up in it, and a process that serves it.
//!
//! ```sh
//! cargo run --release --example scale -- [--gateways N] [--services N] [--targets N] [--rules N] [--keys N] [--shared] [--serve]
//! ```
//!
//! `--shared` gives all gateways the same models and targets; without it every name is its own. `--serve` runs a gateway with it, too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use pingora_core::server::ShutdownSignalWatch;
use tollgate::config::{self, Format};
use tollgate::model::Config;
use tollgate::server::{self, Ending, ShutdownSignal, Start};
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
    let (size, serve) = size();
    let Size {
        gateways,
        services,
        targets,
        ..
    } = size;
    println!("{gateways} gateways x {services} services x {targets} targets");
    let (config, snapshot) = load(size);
    let ratios: Vec<(f64, f64, f64)> = (0..15)
        .map(|_| {
            // Both are asked for as many different models, which is what caches see.
            let (one, many) = (
                look_ups(&snapshot, 1, size),
                look_ups(&snapshot, gateways, size),
            );
            (many / one, one, many)
        })
        .collect();
    compare("look-ups that stay in one gateway and in all", ratios);
    let small = alone(Size {
        gateways: 1,
        ..size
    });
    let same = |_| {
        let (one, many) = (look_ups(&small, 1, size), look_ups(&snapshot, 1, size));
        (many / one, one, many)
    };
    compare(
        &format!("the same look-ups in a configuration of 1 gateway and of {gateways}"),
        (0..15).map(same).collect(),
    );
    let few = |rules| {
        alone(Size {
            gateways: 1,
            rules,
            ..size
        })
    };
    let (one, thousand) = (few(1), few(1_000));
    let ruled = |_| {
        let (one, many) = (by_rule(&one, 1), by_rule(&thousand, 1_000));
        (many / one, one, many)
    };
    compare("1 rule and 1,000", (0..15).map(ruled).collect());
    drop((config, snapshot, small, one, thousand));
    if serve {
        self::serve(size);
    }
}

fn load(size: Size) -> (Config, Snapshot) {
    let before = resident("VmRSS:");
    let text = document(size);
    println!("  file: {:.1} MiB", text.len() as f64 / MIB);
    let start = Instant::now();
    let mut config = parse(&text);
    report("read and checked", start.elapsed());
    let registry = Registry::new(Arc::new(NoHttp));
    let metrics = Arc::new(Metrics::new());
    let start = Instant::now();
    let mut snapshot = compile(&config, 1, &registry, &metrics, None);
    report("compiled", start.elapsed());
    let (now, most) = (resident("VmRSS:"), resident("VmHWM:"));
    println!(
        "  in memory: {:.1} MiB, at most {:.1} MiB",
        (now - before) / MIB,
        most / MIB
    );
    let mut times = Vec::new();
    for round in 0..50 {
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
    let start = Instant::now();
    let whole = compile(&config, 2, &registry, &metrics, None);
    report("the same with nothing from before", start.elapsed());
    drop(whole);
    let start = Instant::now();
    metrics.render();
    report("metrics rendered", start.elapsed());
    (config, snapshot)
}

/// The median round.
fn compare(what: &str, mut rounds: Vec<(f64, f64, f64)>) {
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, one, many) = rounds[rounds.len() / 2];
    println!("  {what}: {one:.0} ns, {many:.0} ns, ratio {ratio:.3}");
}

fn alone(size: Size) -> Snapshot {
    let config = parse(&document(size));
    let registry = Registry::new(Arc::new(NoHttp));
    compile(&config, 1, &registry, &Arc::new(Metrics::new()), None)
}

const ROUNDS: usize = 100_000;

/// Nanoseconds from a host and a model's name to the service, one request after another.
fn look_ups(snapshot: &Snapshot, gateways: usize, size: Size) -> f64 {
    let asked: Vec<(String, String)> = (0..size.services.min(10) * gateways.min(100))
        .map(|n| {
            let gateway = n * 37 % gateways;
            (host(gateway), model(gateway, n % size.services, size))
        })
        .collect();
    rounds(|n| {
        let (host, model) = &asked[n % asked.len()];
        decide(snapshot, host, "/v1/chat/completions", model)
    })
}

/// The same, by a rule's path.
fn by_rule(snapshot: &Snapshot, rules: usize) -> f64 {
    let paths: Vec<String> = (0..64)
        .map(|n| format!("/tools/{}/x", n * 37 % rules))
        .collect();
    let host = host(0);
    rounds(|n| decide(snapshot, &host, &paths[n % paths.len()], "none"))
}

fn rounds(mut ask: impl FnMut(usize) -> Decision) -> f64 {
    let start = Instant::now();
    for n in 0..ROUNDS {
        assert!(matches!(black_box(ask(n)), Decision::Route(_)));
    }
    start.elapsed().as_nanos() as f64 / ROUNDS as f64
}

fn decide(snapshot: &Snapshot, host: &str, path: &str, model: &str) -> Decision {
    static NONE: LazyLock<http::HeaderMap> = LazyLock::new(http::HeaderMap::new);
    let entry = snapshot.hosts.find(black_box(host)).unwrap();
    let gateway = snapshot.gateways[entry.gateway].clone();
    let head = Head {
        method: &http::Method::POST,
        path: black_box(path),
        headers: &NONE,
        service: entry.service,
        who: Who::Anybody,
    };
    gateway.router.decide(head, ModelName::Is(black_box(model)))
}

/// A whole process with it: until it is ready, once it is quiet, and when its file changes.
fn serve(size: Size) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let admin = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let more = format!(
        "[admin]\naddress = \"{admin}\"\n[log]\naccess = \"off\"\n[server]\nstate = \"memory\"\n"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let text = document(size).replacen("127.0.0.1:0", &address, 1) + &more;
    std::fs::write(&file, &text).unwrap();
    let start = Instant::now();
    let config = config::load(&file).unwrap().config;
    let path = file.clone();
    std::thread::spawn(move || {
        server::run(
            &config,
            Start {
                file: Some(&path),
                take_over: false,
            },
            Ending {
                signal: Some(Box::new(Never)),
                drained: None,
            },
        )
        .unwrap();
    });
    while !ask(admin, "GET", "/readyz").is_some_and(|reply| reply.contains(" 200 ")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    report("serving: from the file to ready", start.elapsed());
    std::thread::sleep(Duration::from_secs(20));
    let (now, most) = (resident("VmRSS:"), resident("VmHWM:"));
    println!(
        "  serving: in memory {:.1} MiB, at most {:.1} MiB",
        now / MIB,
        most / MIB
    );
    let before = processor();
    std::thread::sleep(Duration::from_secs(10));
    println!(
        "  serving: {:.1} % of a core while nothing is asked",
        (processor() - before) * 10.0
    );
    let start = Instant::now();
    let page = ask(admin, "GET", "/metrics").unwrap();
    report("serving: a scrape", start.elapsed());
    println!("  serving: a scrape has {:.1} MiB", page.len() as f64 / MIB);
    std::fs::write(
        &file,
        text.replacen("models = [", "weight = 7\nmodels = [", 1),
    )
    .unwrap();
    let start = Instant::now();
    let reply = ask(admin, "POST", "/v1/reload").unwrap();
    report(
        "serving: the file read again, one service changed",
        start.elapsed(),
    );
    assert!(reply.contains("updated"), "{reply}");
}

/// Nobody ends it.
struct Never;

#[async_trait::async_trait]
impl ShutdownSignalWatch for Never {
    async fn recv(&self) -> ShutdownSignal {
        std::future::pending().await
    }
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

/// Seconds of processor time of this process.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
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
        let host = host(gateway);
        let _ = writeln!(
            text,
            "[[gateway]]\nname = \"g{gateway:04}\"\nhosts = [\"{host}\"]\nauth = \"{auth}\""
        );
        for service in 0..size.services {
            let model = model(gateway, service, size);
            let _ = writeln!(
                text,
                "[[service]]\nname = \"g{gateway:04}-s{service:02}\"\ngateways = [\"g{gateway:04}\"]\nmodels = [\"{model}\"]\ntargets = [{}]",
                targets(gateway, service, size)
            );
        }
        for rule in 0..size.rules {
            let _ = writeln!(
                text,
                "[[rule]]\nname = \"g{gateway:04}-r{rule:02}\"\ngateway = \"g{gateway:04}\"\npath = \"/tools/{rule}/*\"\nservices = [\"g{gateway:04}-s00\"]"
            );
        }
        for key in 0..size.keys {
            let hash = gateway * size.keys + key;
            let _ = writeln!(
                text,
                "[[key]]\nname = \"g{gateway:04}-k{key:02}\"\ngateway = \"g{gateway:04}\"\nhash = \"sha256:{hash:064x}\""
            );
        }
    }
    text
}

/// On loopback, where nobody listens.
fn targets(gateway: usize, service: usize, size: Size) -> String {
    let own = if size.shared { 0 } else { gateway };
    let url = |target: usize| {
        let n: usize = (own * size.services + service) * size.targets + target;
        format!(
            "\"http://127.{}.{}.{}:9\"",
            1 + (n >> 16),
            (n >> 8) & 255,
            n & 255
        )
    };
    (0..size.targets).map(url).collect::<Vec<_>>().join(", ")
}

fn parse(text: &str) -> Config {
    let no_file = |path: &str| Err(format!("there is no file {path}"));
    let parsed = config::parse("scale", text, Format::Toml, &|_| None, &no_file);
    parsed.unwrap().config
}

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes of this process in memory: `VmRSS:` now, `VmHWM:` at most.
fn resident(which: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn report(what: &str, took: Duration) {
    println!("  {what}: {:.1} ms", took.as_secs_f64() * 1e3);
}

fn size() -> (Size, bool) {
    let mut size = Size {
        gateways: 1000,
        services: 10,
        targets: 3,
        rules: 1,
        keys: 1,
        shared: false,
    };
    let mut serve = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--shared" => size.shared = true,
            "--serve" => serve = true,
            number => {
                let place = match number {
                    "--gateways" => &mut size.gateways,
                    "--services" => &mut size.services,
                    "--targets" => &mut size.targets,
                    "--rules" => &mut size.rules,
                    "--keys" => &mut size.keys,
                    _ => panic!("there is no {word}"),
                };
                *place = words.next().unwrap().parse().unwrap();
            }
        }
    }
    (size, serve)
}
