//! `docs/plugins.md`: every built-in plugin, with an example that is read as it stands.

use std::fmt::Write;

use tollgate_plugins::BUILTINS;
use tollgate_sdk::document::FromNode;
use tollgate_sdk::plugin::{Kind, Stage};

use super::{MADE, Tables, anchor, prose, rows_of};
use crate::documents::{compare, parse_toml};

const HEAD: &str = "\
A plugin looks at requests, at answers or at both, and may change or refuse them. It stands in a chain, as an entry of `plugins` of a gateway, a service or a rule:

```toml
[[gateway.plugins]]
name = \"rate_limiter\"
priority = 1
settings = { limits = { per_key = { limit = 100, window = \"1m\" } } }
```

Lower priorities come first; the gateway's before the service's before the rule's. The chain of a gateway runs before a request is routed. Of the fields of an
entry tells [configuration.md](configuration.md#gatewayplugins). What plugins count goes on over a reload.
";

/// An entry's settings for each plugin.
const EXAMPLES: [(&str, &str); 19] = [
    (
        "cors",
        r#"{ allowed_origins = ["https://app.example.com"], require_origin = false }"#,
    ),
    (
        "ip_filter",
        r#"{ allow = ["10.0.0.0/8"], deny = ["10.0.0.13"] }"#,
    ),
    (
        "headers",
        r#"{ request = { set = { X-Team = "research" } }, response = { remove = ["Server"] } }"#,
    ),
    (
        "rate_limiter",
        r#"{ limits = { per_key = { limit = 100, window = "1m" }, global = { limit = 10000, window = "1h" } } }"#,
    ),
    (
        "token_rate_limiter",
        r#"{ limits = { per_key = { limit = 100000, window = "1m" } } }"#,
    ),
    (
        "concurrency_limiter",
        "{ limits = { per_key = 8, global = 500 } }",
    ),
    (
        "budget",
        r#"{ limit = 100.0, per = "month", prices = { "Qwen/*" = { input = 0.2, cached = 0.05, output = 0.6 } } }"#,
    ),
    (
        "request_size_limiter",
        r#"{ allowed_payload_size = 2, size_unit = "megabytes" }"#,
    ),
    ("model_allowlist", r#"{ models = ["Qwen/*"] }"#),
    (
        "request_validator",
        r#"{ required = ["messages"], max = { max_tokens = 4096, temperature = 2.0 } }"#,
    ),
    (
        "transform",
        r#"{ request = { set = { "metadata.via" = "tollgate" } }, response = { remove = ["system_fingerprint"] } }"#,
    ),
    (
        "prompt_guard",
        r#"{ keywords = ["internal use only"], regex = ["(?i)password\\s*[:=]"] }"#,
    ),
    ("data_masking", "{ apply_all = true }"),
    (
        "fault_injection",
        r#"{ fault = "refuse", share = 0.05, status = 503 }"#,
    ),
    ("api_key", r#"{ keys = ["team-a"] }"#),
    (
        "external",
        r#"{ url = "http://127.0.0.1:9100/check", timeout = "300ms", on_failure = "pass" }"#,
    ),
    (
        "external_api",
        r#"{ endpoint = "http://127.0.0.1:9100/check", conditions = [{ field = "score", operator = "gt", value = 0.8, stop_flow = true }] }"#,
    ),
    ("mirror", r#"{ service = "trial", share = 0.1 }"#),
    ("response_cache", r#"{ ttl = "5m", max_bytes = "64MiB" }"#),
];

/// What an example stands in.
const AROUND: &str = r#"
[[listener]]
address = "127.0.0.1:8080"
[[gateway]]
name = "main"
hosts = ["*"]
[[key]]
name = "team-a"
gateway = "main"
hash = "0000000000000000000000000000000000000000000000000000000000000000"
[[service]]
name = "trial"
models = ["trial"]
targets = ["http://127.0.0.1:8001"]
[[service]]
name = "qwen"
models = ["Qwen/Qwen3-8B"]
targets = ["http://127.0.0.1:8000"]
"#;

fn entry(name: &str) -> String {
    let example = EXAMPLES.iter().find(|(of, _)| *of == name);
    let (_, settings) = example.unwrap_or_else(|| panic!("{name} has no example"));
    format!("[[service.plugins]]\nname = \"{name}\"\nsettings = {settings}\n")
}

/// Kinds under all their names, the first of each being its own.
fn named() -> Vec<(&'static Kind, Vec<&'static str>)> {
    let mut all: Vec<(&Kind, Vec<&str>)> = Vec::new();
    for kind in BUILTINS {
        let same = |other: &Kind| (other.doc)() == (kind.doc)();
        match all.iter_mut().find(|(other, _)| same(other)) {
            Some((_, names)) => names.push(kind.name),
            None => all.push((kind, Vec::new())),
        }
    }
    all
}

fn stages(kind: &Kind) -> String {
    let all: Vec<_> = { kind.stages.iter() }
        .map(|stage| format!("`{}`", stage.word()))
        .collect();
    let apart = match (kind.apart, all.len()) {
        (true, _) => ": the one that its entry names",
        (false, 2..) => ", in all of them together",
        (false, _) => "",
    };
    format!("{}{apart}", all.join(", "))
}

fn made() -> String {
    let mut out = format!("# Plugins\n\n{MADE}\n\n{HEAD}\nThe stages of an exchange:\n\n");
    for form in Stage::schema()["anyOf"].as_array().unwrap() {
        if let (Some(word), Some(means)) = (form["const"].as_str(), form["description"].as_str()) {
            writeln!(out, "- `{word}`: {means}").unwrap();
        }
    }
    out += "\nThe plugins:\n\n";
    for (kind, _) in named() {
        let doc = (kind.doc)();
        let first = doc.split_inclusive(". ").next().unwrap_or_default();
        let first = first.lines().collect::<Vec<_>>().join(" ");
        let line = format!(
            "- [`{}`](#{}): {}",
            kind.name,
            anchor(kind.name),
            prose(first.trim())
        );
        writeln!(out, "{line}").unwrap();
    }
    for (kind, others) in named() {
        write!(out, "\n## `{}`\n\n{}\n\n", kind.name, prose(&(kind.doc)())).unwrap();
        if !others.is_empty() {
            write!(out, "Also read as `{}`. ", others.join("`, `")).unwrap();
        }
        writeln!(
            out,
            "Stages: {}.\n\n```toml\n{}```\n",
            stages(kind),
            entry(kind.name)
        )
        .unwrap();
        // Fields that plugins have in common are shown with each of them.
        Tables::default().write(&mut out, kind.name, &rows_of(&(kind.fields)()));
    }
    out
}

#[test]
fn the_page_is_current() {
    compare("docs/plugins.md", &made());
}

#[test]
fn every_example_is_accepted() {
    for (kind, _) in named() {
        let config = parse_toml(&format!("{AROUND}{}", entry(kind.name)));
        let service = config.services.last().unwrap();
        assert_eq!(service.plugins.len(), 1, "{}", kind.name);
        assert_eq!(service.plugins[0].name, kind.name);
    }
}

/// Of an entry's own fields tells the page of the configuration; the link above leads there.
#[test]
fn the_fields_of_an_entry_are_documented() {
    let page =
        std::fs::read_to_string(crate::documents::repository("docs/configuration.md")).unwrap();
    assert!(page.contains("### `gateway.plugins`"));
    for field in <tollgate::model::Plugin as FromNode>::fields() {
        assert!(
            page.contains(&format!("| `{}` |", field.name)),
            "{}",
            field.name
        );
    }
}
