//! What was used, as `tollgate usage` reports it: to the token, to the millionth, and after a restart.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{CHAT, Process, Reply, bearer, chat, engine_with, post, service, streamed};

const SECRETS: [(&str, &str); 2] = [
    ("one", "tg_a1_0123456789abcdef0123456789abcdef"),
    ("two", "tg_b2_fedcba9876543210fedcba9876543210"),
];
/// Money for a million tokens, in and out.
const PRICES: (u64, u64) = (3, 7);
const HEAD: [&str; 6] = [
    "requests",
    "errors",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost",
];

/// Requests, errors, tokens in, cached and out, millionths of cost.
type Sums = [u64; 6];

#[derive(Default)]
struct Books(BTreeMap<(&'static str, String), Sums>);

impl Books {
    /// Writes one exchange into every book.
    fn add(&mut self, key: &str, service: &str, model: &str, sums: Sums) {
        let groups = [
            ("key", key),
            ("service", service),
            ("model", model),
            ("gateway", "main"),
        ];
        for (by, name) in groups {
            let total = self.0.entry((by, name.to_owned())).or_default();
            for (total, more) in total.iter_mut().zip(sums) {
                *total += more;
            }
        }
    }

    fn of(&self, by: &str) -> BTreeMap<String, Sums> {
        let own = self.0.iter().filter(|((book, _), _)| *book == by);
        own.map(|((_, name), sums)| (name.clone(), *sums)).collect()
    }
}

fn start(engine: &str) -> Process {
    let price = format!("input = {}.0, output = {}.0", PRICES.0, PRICES.1);
    let prices = format!("{{ \"alpha\" = {{ {price} }}, \"beta*\" = {{ {price} }} }}");
    let budget = format!(
        "{{ name = \"budget\", settings = {{ limit = 1000.0, unpriced = \"pass\", prices = {prices} }} }}"
    );
    let gateway = format!("[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nplugins = [{budget}]\n");
    let keys = SECRETS.map(|(name, secret)| {
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n")
    });
    let server = "[server]\nstate = \"./tollgate.db\"\n";
    let services = service("first", "alpha", engine) + &service("second", "beta*", engine);
    Process::start(&format!("{server}{gateway}{}{services}", keys.concat()))
}

/// What the engine says it used, in an answer or in a stream's last event.
fn told(reply: &Reply) -> (u64, u64) {
    reply.assert_ok();
    let usage = match reply.events().iter().rev().nth(1) {
        Some(last) if last.contains("\"usage\"") => serde_json::from_str(last).unwrap(),
        _ => reply.json(),
    };
    let usage: &Value = &usage["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    (count("prompt_tokens"), count("completion_tokens"))
}

fn traffic(process: &Process) -> Books {
    let mut books = Books::default();
    for (index, (key, secret)) in SECRETS.into_iter().enumerate() {
        for (service, model) in [("first", "alpha"), ("second", "beta-2")] {
            for n in 1..=4 + index {
                let most = n * 3 + model.len();
                let body = match n % 2 {
                    0 => chat(model).replacen('{', &format!("{{\"max_tokens\":{most},"), 1),
                    _ => streamed(model, most).replacen(
                        '{',
                        "{\"stream_options\":{\"include_usage\":true},",
                        1,
                    ),
                };
                let mut client = process.client();
                client.send(post(CHAT, &bearer(secret), body));
                let (input, output) = told(&client.reply());
                assert_eq!(output, most as u64);
                let cost = PRICES.0 * input + PRICES.1 * output;
                books.add(key, service, model, [1, 0, input, 0, output, cost]);
            }
        }
        // What is refused counts as an error, what nobody is known by counts nowhere.
        process
            .client()
            .chat("nowhere", &bearer(secret))
            .assert_refused(404, "model_not_found");
        books.add(key, "", "nowhere", [1, 1, 0, 0, 0, 0]);
        let fields = bearer(secret) + "x-sim: status=400\r\n";
        assert_eq!(process.client().chat("alpha", &fields).status, 400);
        books.add(key, "first", "alpha", [1, 1, 0, 0, 0, 0]);
        process
            .client()
            .chat("alpha", "")
            .assert_refused(401, "invalid_api_key");
    }
    books
}

/// A report as name → sums.
fn report(process: &Process, by: &str, format: &str, more: &[&str]) -> BTreeMap<String, Sums> {
    let arguments = [&["usage", "--by", by, "-o", format], more].concat();
    let text = process.api().cli(&arguments).done();
    let sums = |cells: Vec<String>| -> Sums {
        let mut sums = Sums::default();
        assert_eq!(cells.len(), sums.len(), "{text}");
        for (sum, cell) in sums.iter_mut().zip(&cells) {
            *sum = cell.parse().unwrap_or(0);
        }
        sums[5] = (cells[5].parse::<f64>().unwrap() * 1e6).round() as u64;
        sums
    };
    let cells = |row: &Value| HEAD.map(|name| row[name].to_string()).to_vec();
    match format {
        "json" => {
            let rows: Value = serde_json::from_str(&text).unwrap();
            let rows = rows.as_array().unwrap().iter();
            rows.map(|row| {
                assert_eq!(row[by], row["name"]);
                (row["name"].as_str().unwrap().to_owned(), sums(cells(row)))
            })
            .collect()
        }
        "csv" => {
            let mut lines = text.split_terminator("\r\n");
            assert_eq!(lines.next(), Some(&*format!("{by},{}", HEAD.join(","))));
            lines
                .map(|line| {
                    let mut cells = line.split(',').map(str::to_owned);
                    (cells.next().unwrap(), sums(cells.collect()))
                })
                .collect()
        }
        _ => {
            let mut lines = text.lines();
            assert!(lines.next().unwrap().starts_with(&by.to_uppercase()));
            lines
                .map(|line| {
                    let mut cells = line.split_whitespace().map(str::to_owned);
                    let name = cells.next().unwrap().replace("(none)", "");
                    (name, sums(cells.collect()))
                })
                .collect()
        }
    }
}

#[test]
fn every_report_agrees_with_what_was_used() {
    let engine = engine_with(|config| config.tokens = 1_000);
    let mut process = start(&engine.url());
    let today = || jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let began = today();
    let books = traffic(&process);
    let days = [began, today()];
    let check = |process: &Process| {
        for by in ["key", "model", "service", "gateway"] {
            let wanted = books.of(by);
            assert!(wanted.values().any(|sums| sums[5] > 0), "{by}");
            for format in ["json", "csv"] {
                assert_eq!(report(process, by, format, &[]), wanted, "{by} {format}");
            }
            // A table shows money to the hundredth of a hundredth.
            let mut rounded = report(process, by, "table", &[]);
            assert!(
                rounded.values().any(|sums| sums[5] > 0),
                "no cost in the table"
            );
            for (name, sums) in &mut rounded {
                assert!(sums[5].abs_diff(wanted[name][5]) <= 50, "{name}");
                sums[5] = wanted[name][5];
            }
            assert_eq!(rounded, wanted, "{by} table");
        }
        let by_day = report(process, "day", "json", &[]);
        assert!(by_day.keys().all(|day| days.contains(day)), "{by_day:?}");
        let mut all = Sums::default();
        for sums in by_day.values() {
            all.iter_mut()
                .zip(sums)
                .for_each(|(sum, more)| *sum += more);
        }
        assert_eq!(all, books.of("gateway")["main"]);
        // Questions about a part.
        let one = report(process, "gateway", "json", &["--key", "one"]);
        assert_eq!(one["main"], books.of("key")["one"]);
        assert!(report(process, "key", "json", &["--gateway", "other"]).is_empty());
        assert!(report(process, "key", "json", &["--until", "1h"]).is_empty());
        let since = report(process, "key", "json", &["--since", "1h"]);
        assert_eq!(since, books.of("key"));
        let raw = process.api().cli(&["usage", "-o", "csv"]).done();
        for (_, secret) in SECRETS {
            assert!(!raw.contains(secret), "{raw}");
        }
    };
    check(&process);
    process.signal("TERM");
    process.end();
    process.restart();
    check(&process);
}
