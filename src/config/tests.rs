//! Reading as a whole: what is accepted, what is shown of what is not. Broken files are in `tests/documents`.

mod reliability;

use std::fs;
use std::net::SocketAddr;

use super::*;
use crate::model::{AccessLog, Name, Pool};

const SMALLEST: &str = r#"
[[listener]]
address = "127.0.0.1:8080"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
[[service]]
name = "qwen"
models = ["*"]
targets = ["http://127.0.0.1:8000"]
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "SET" => Some("from-the-environment".into()),
        "EMPTY" => Some(String::new()),
        "NUMBER" => Some("7".into()),
        "TRUE" => Some("true".into()),
        _ => None,
    }
}

fn read_as(format: Format, text: &str) -> Result<Loaded, Diagnostics> {
    let read_file = |path: &str| match path {
        "secret.key" => Ok("from-a-file\r\n".to_owned()),
        path => Err(format!("there is no file {path}")),
    };
    parse("t", text, format, &env, &read_file)
}

#[track_caller]
fn accepted(more: &str) -> Config {
    match read_as(Format::Toml, &format!("{more}\n{SMALLEST}")) {
        Ok(loaded) => loaded.config,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

#[track_caller]
fn said(text: &str) -> String {
    match read_as(Format::Toml, text) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

#[test]
fn the_environment_fills_in_text_numbers_and_booleans() {
    let config = accepted(
        r#"
        [server]
        threads = "${NUMBER}"
        max_body = "${NUMBER}MiB"
        [log]
        access = "/${UNSET:-var}/${EMPTY:-log}/${SET}$${SET}$"
        [[gateway]]
        name = "${SET}"
        auth = "none"
        default = "${TRUE}"
        "#,
    );
    assert_eq!(config.server.threads, 7);
    assert_eq!(config.server.max_body.bytes(), 7 << 20);
    let path = "/var/log/from-the-environment${SET}$".into();
    assert_eq!(config.log.access, AccessLog::Path(path));
    let [gateway, _] = config.gateways.as_slice() else {
        panic!("{:?}", config.gateways);
    };
    assert!(gateway.default && gateway.name.as_str() == "from-the-environment");
}

#[test]
fn secrets_come_from_text_environment_and_files() {
    let config = accepted(
        r#"
        upstream = [
            { name = "a", targets = ["http://a"], api_key = "typed" },
            { name = "b", targets = ["http://a"], api_key = "${SET}" },
            { name = "c", targets = ["http://a"], api_key = { file = "secret.key" } },
            { name = "d", targets = ["http://a"], api_key = "${EMPTY:-}" },
        ]
        "#,
    );
    let keys = config
        .upstreams
        .iter()
        .map(|upstream| upstream.api_key.as_ref());
    let keys: Vec<_> = keys
        .map(|key| key.map(|key| key.expose().as_str()))
        .collect();
    let expected = ["typed", "from-the-environment", "from-a-file"];
    assert_eq!(
        keys,
        [
            Some(expected[0]),
            Some(expected[1]),
            Some(expected[2]),
            None
        ]
    );
    let debugged = format!("{config:?}");
    assert!(expected.iter().all(|secret| !debugged.contains(secret)));
}

#[test]
fn listeners_and_rules_without_a_name_get_one() {
    let config = accepted(
        r#"
        [[rule]]
        gateway = "main"
        [[rule]]
        name = "mine"
        gateway = "main"
        [[rule]]
        gateway = "main"
        [[listener]]
        address = ":9000"
        [[listener]]
        address = "[::1]:9000"
        "#,
    );
    let names: Vec<_> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["rule-1", "mine", "rule-3"]);
    let names = config
        .listeners
        .iter()
        .map(|listener| listener.name.as_str());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["9000", "1--9000", "127.0.0.1-8080"]
    );
    let addresses = config.listeners.iter().map(|listener| listener.address);
    let every = SocketAddr::from(([0, 0, 0, 0], 9000));
    assert_eq!(addresses.take(1).collect::<Vec<_>>(), [every]);
}

#[test]
fn a_pool_is_one_of_two() {
    let config = accepted(
        r#"
        [[upstream]]
        name = "p"
        targets = ["http://a"]
        [[service]]
        name = "s"
        models = ["x"]
        upstream = "p"
        "#,
    );
    let [shared, own] = config.services.as_slice() else {
        panic!("{:?}", config.services);
    };
    assert_eq!(
        Ok(&shared.pool),
        Name::new("p").map(Pool::Upstream).as_ref()
    );
    assert!(matches!(&own.pool, Pool::Targets(targets) if targets.len() == 1));
}

#[test]
fn carets_stand_under_what_they_mean() {
    // Columns are counted in characters; carets in columns of the terminal; tabs stay tabs.
    let said = said("[server]\n\tgrace = \"日本é\" # é\n");
    let expected = "\
t:2:10: server.grace: \"日本é\": not a duration
  2 | \tgrace = \"日本é\" # é
    | \t        ^^^^^^^
help: write a whole number with its unit: \"1500ms\", \"30s\", \"5m\", \"24h\", \"7d\"
";
    assert_eq!(said, expected);
}

#[test]
fn nothing_odd_reaches_the_terminal() {
    let long = "x".repeat(1000);
    let text = format!("[server]\r\ngrace = '\u{9b}31m'\r\nstate = \"{long}\"\r\n");
    let said = said(&text);
    assert!(
        !said.chars().any(|c| c.is_control() && c != '\n'),
        "{said:?}"
    );
    assert!(
        said.lines().all(|line| line.chars().count() < 170),
        "{said}"
    );
}

#[test]
fn a_broken_syntax_tells_no_secret() {
    for text in [
        "api_key = \"sk-1234\n",
        "[upstream]\nAPI-Key = sk-1234\n",
        "x = 1\ntoken: sk-1234\n",
        "a = { \"Authorization\" = Bearer sk-1234 }",
        "targets = [\"http://user:sk-1234@host\" \"x\"]",
    ] {
        let said = said(text);
        assert!(said.contains("***") && !said.contains("1234"), "{said}");
    }
    for text in [
        "a: [\ntoken: \"sk-1234",
        "api_key: sk-1234: x: y",
        "password: \"sk-1234\"\n\tx: 1",
    ] {
        let said = match read_as(Format::Yaml, text) {
            Ok(loaded) => loaded.warnings.to_string(),
            Err(diagnostics) => diagnostics.to_string(),
        };
        assert!(!said.contains("1234"), "{said}");
    }
}

#[test]
fn a_wrong_secret_is_not_told_by_any_message() {
    for given in [
        "api_key = [\"sk-1234\"]",
        "api_key = { file = \"x\", key = \"sk-1234\" }",
        "api_key = { env = \"sk-1234\" }",
        "apikey = \"sk-1234\"",
        "headers = { Authorization = [\"sk-1234\"] }",
        "headers = \"sk-1234\"",
        "targets = \"http://user:sk-1234@host\"",
        "targets = [\"http://user:sk-1234@host:x\"]",
        "engine = \"http://user:sk-1234@host\"",
    ] {
        let said = said(&format!(
            "{SMALLEST}\n[[upstream]]\nname = \"a\"\n{given}\n"
        ));
        assert!(
            said.contains(": ") && !said.contains("1234"),
            "{given}\n{said}"
        );
    }
}

#[test]
fn warnings_do_not_refuse() {
    let loaded = read_as(
        Format::Toml,
        &format!(
            "{SMALLEST}\n[[upstream]]\nname = \"idle\"\ntargets = [\"http://a\"]\n[[service]]\nname = \"lost\"\ntargets = [\"http://a\"]\n"
        ),
    );
    let said = loaded
        .map(|loaded| loaded.warnings.to_string())
        .unwrap_or_default();
    let firsts: Vec<_> = said
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    assert_eq!(
        firsts,
        [
            "t:14:8: warning: upstream[0]: no service uses it",
            "t:17:8: warning: service[1]: no request can reach it: it has no models, no path_prefix, and no rule or fallback names it",
        ]
    );
}

#[test]
fn yaml_aliases_are_copies_and_limited() {
    let text = "
listener: [{ address: '127.0.0.1:8080' }]
gateway: [{ name: main, hosts: ['*'], auth: none }]
service:
  - { name: a, models: [a], targets: &t ['http://a'] }
  - { name: b, models: [b], targets: *t }
";
    let config = read_as(Format::Yaml, text).map(|loaded| loaded.config.services.len());
    assert_eq!(config.ok(), Some(2));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let last = n - 1;
        bomb += &format!(
            "a{n}: &a{n} [{}]\n",
            vec![format!("*a{last}"); 10].join(", ")
        );
    }
    let said = read_as(Format::Yaml, &bomb)
        .err()
        .map(|diagnostics| diagnostics.to_string());
    assert!(said.is_some_and(|said| said.contains("aliases stand for too much")));
}

#[test]
fn depth_is_limited() {
    let deep = 100_000;
    for (format, text, expected) in [
        (Format::Yaml, "- ".repeat(deep), "nested too deeply"),
        (Format::Yaml, "[".repeat(deep), "recursion"),
        (Format::Json, "[".repeat(deep), "recursion"),
        (
            Format::Toml,
            format!("a = {}", "[".repeat(deep)),
            "recursion",
        ),
        (
            Format::Toml,
            format!("{}a = 1", "a.".repeat(deep)),
            "recursion",
        ),
        (
            Format::Toml,
            format!("[{}a]", "a.".repeat(deep)),
            "recursion",
        ),
    ] {
        let said = read_as(format, &text)
            .err()
            .map(|diagnostics| diagnostics.to_string());
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{said:?}"
        );
    }
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty.toml"), "# nothing\n").unwrap();
    fs::write(path("empty.yaml"), "").unwrap();
    fs::write(path("latin.toml"), b"name = \"\xe9\"").unwrap();
    fs::write(path("good.toml"), SMALLEST).unwrap();
    for (name, expected) in [
        ("none.toml", "there is no such file"),
        ("empty.toml", "nothing is configured"),
        ("empty.yaml", "nothing is configured"),
        ("latin.toml", ":1:9: not UTF-8 from here on"),
        ("", "this is a directory"),
    ] {
        let said = load(&path(name))
            .err()
            .map(|diagnostics| diagnostics.to_string());
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{name}: {said:?}"
        );
    }
    assert!(load(&path("good.toml")).is_ok());
    // Files of secrets are found beside the file that names them.
    let upstream =
        "[[upstream]]\nname = \"a\"\ntargets = [\"http://a\"]\napi_key = { file = \"key\" }\n";
    fs::write(path("key.toml"), format!("{SMALLEST}{upstream}")).unwrap();
    assert!(load(&path("key.toml")).is_err());
    fs::write(path("key"), "secret\n").unwrap();
    assert!(load(&path("key.toml")).is_ok());
}
