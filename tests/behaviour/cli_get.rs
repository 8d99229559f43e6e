//! `tollgate get`: what a gateway has, as a person and as a program wants it.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Admin, Mood, PROGRAM, Terminal, program, until};

/// A gateway with something of every kind.
fn furnished() -> Admin {
    let admin = Admin::start();
    admin.put("gateway", json!({"name": "main", "hosts": ["*"], "default": true, "plugins": [{"name": "cors", "priority": 3}, "headers"]}));
    admin.put("gateway", json!({"name": "edge", "hosts": ["a.example.com", "b.example.com"], "domain": "example.com", "labels": {"region": "eu", "backend": "aws"}}));
    admin.put("upstream", json!({"name": "pool", "targets": ["http://10.0.0.1:1", {"url": "http://10.0.0.2:1"}], "policy": {"name": "consistent_hash"}, "api_key": "***"}));
    admin.put("service", json!({"name": "qwen", "models": ["Qwen/Qwen3-8B", "qwen*"], "upstream": "pool", "weight": 7, "description": "costs ${5}: \"yes\""}));
    admin.put("service", json!({"name": "alpha", "targets": ["http://10.0.0.3:1"], "gateways": ["main"], "plugins": [{"name": "cors"}]}));
    admin.put("rule", json!({"name": "r", "gateway": "main", "path": "/a/*", "services": [{"name": "alpha", "weight": 3}]}));
    admin.put("key", json!({"name": "bob", "gateway": "main", "id": "b0b", "services": ["alpha"], "models": ["q*"]}));
    admin.change(|state| {
        state.status = json!({"gateways": [{"name": "main", "status": "ready", "services": ["alpha", "qwen"]}, {"name": "edge", "status": "error", "services": ["qwen"]}],
            "targets": [{"upstream": "pool", "id": "t2", "url": "http://10.0.0.2:1", "health": "down", "breaker": "open", "in_flight": 4, "weight": 1, "cooling_ms": 2500},
                {"upstream": "pool", "id": "t1", "url": "http://10.0.0.1:1", "health": "up", "breaker": "closed", "in_flight": 12, "weight": 1}]});
    });
    admin
}

/// A table as words, line by line. Cells with spaces fall apart.
fn words(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn tables_show_each_kind() {
    let admin = furnished();
    let api = admin.api();
    let table = api.cli(&["get", "gateways"]).done();
    assert_eq!(
        words(&table),
        [
            vec![
                "NAME", "BACKEND", "REGION", "HOSTS", "DOMAIN", "DEFAULT", "STATUS", "SERVICES"
            ],
            vec![
                "edge",
                "aws",
                "eu",
                "a.example.com,b.example.com",
                "example.com",
                "error",
                "1"
            ],
            vec!["main", "-", "-", "*", "-", "✓", "ready", "2"],
        ]
    );
    let service = |name: &str, more: &[&str]| -> Vec<String> {
        let table = api.cli(&[&["get", "service", name], more].concat()).done();
        let rows = words(&table);
        assert_eq!(rows.len(), 2, "{table}");
        rows[1].iter().map(|word| (*word).to_owned()).collect()
    };
    assert_eq!(
        service("qwen", &[]),
        ["qwen", "openai", "Qwen/Qwen3-8B,qwen*", "all", "pool", "7"]
    );
    assert_eq!(service("alpha", &[])[3..], ["main", "1", "target", "100"]);
    assert!(service("alpha", &["-o", "wide"]).contains(&"cors".to_owned()));
    let targets = api.cli(&["get", "target"]).done();
    assert_eq!(
        words(&targets)[1..],
        [
            ["pool", "t1", "http://10.0.0.1:1", "up", "closed", "12", "1"],
            ["pool", "t2", "http://10.0.0.2:1", "down", "open", "4", "1"],
        ]
    );
    let wide = api.cli(&["get", "targets", "pool/t2", "-o", "wide"]).done();
    assert!(wide.contains("3s") && !wide.contains("t1"), "{wide}");
    let plugins = api.cli(&["get", "plugins"]).done();
    let owners: Vec<String> = words(&plugins)[1..]
        .iter()
        .map(|row| row[..3].join(" "))
        .collect();
    assert_eq!(
        owners,
        [
            "cors gateway main",
            "cors service alpha",
            "headers gateway main"
        ]
    );
    for (kind, row) in [
        ("upstreams", vec!["pool", "consistent_hash", "2"]),
        ("rules", vec!["r", "main", "0", "/a/*", "all", "-", "alpha"]),
        ("keys", vec!["bob", "main", "b0b", "alpha,q*"]),
    ] {
        let table = api.cli(&["get", kind]).done();
        assert_eq!(words(&table)[1][..row.len()], row, "{table}");
    }
    // The keys are the same by their own verb.
    assert_eq!(
        api.cli(&["key", "list"]).done(),
        api.cli(&["get", "key"]).done()
    );
    let none = api.cli(&["get", "certificates"]).done();
    assert_eq!(none, "NAME  HOSTS  ENDS  ISSUER  FROM\n");
}

#[test]
fn what_is_shown_can_be_given_back() {
    let admin = furnished();
    let api = admin.api();
    let json: Value =
        serde_json::from_str(&api.cli(&["get", "services", "-o", "json"]).done()).unwrap();
    let names: Vec<&Value> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|service| &service["name"])
        .collect();
    assert_eq!(names, ["alpha", "qwen"]);
    let one: Value =
        serde_json::from_str(&api.cli(&["get", "service", "qwen", "-o", "json"]).done()).unwrap();
    assert_eq!(one, admin.resource("service", "qwen"));

    let folder = tempfile::tempdir().unwrap();
    for kind in ["gateways", "services", "upstreams", "rules", "keys"] {
        let yaml = api.cli(&["get", kind, "-o", "yaml"]).done();
        assert!(
            yaml.starts_with("kind: ") && !yaml.contains("revision:"),
            "{yaml}"
        );
        std::fs::write(folder.path().join(format!("{kind}.yaml")), yaml).unwrap();
    }
    let file = folder.path().display().to_string();
    let plan = api.cli(&["diff", "-f", &file]).done();
    assert!(plan.ends_with("\n7 unchanged\n"), "{plan}");
}

#[test]
fn kinds_may_be_shortened_and_what_is_not_there_fails() {
    let admin = furnished();
    let api = admin.api();
    for kind in ["s", "serv", "service", "services", "SERVICES"] {
        assert!(api.cli(&["get", kind]).done().contains("qwen"), "{kind}");
    }
    for wrong in [
        &["get"][..],
        &["get", "listener"],
        &["get", ""],
        &["get", "services", "-o", "xml"],
        &["get", "s", "a", "b"],
    ] {
        api.cli(wrong).failed(2, &[]);
    }
    api.cli(&["get", "x"])
        .failed(2, &["upstream", "certificate"]);
    api.cli(&["get", "service", "nobody"])
        .failed(1, &["There is no service nobody"]);
    api.cli(&["get", "target", "pool/none"])
        .failed(1, &["there is no target pool/none"]);
    api.cli(&["get", "certificate", "none"])
        .failed(1, &["there is no certificate none"]);
    // Names are data, not paths.
    api.cli(&["get", "service", "../status"])
        .failed(1, &["There is no service"]);
    admin.set(Mood::Gone);
    api.cli(&["get", "services"])
        .failed(1, &["is the gateway running"]);
}

#[test]
fn tables_fit_the_terminal() {
    let admin = furnished();
    let url = admin.url();
    let long = format!("{}\u{1b}[2J", "m".repeat(90));
    admin.put("service", json!({"name": "long", "models": [long]}));
    for columns in [60, 90] {
        let mut terminal = Terminal::run(&["get", "services", "--server", &url], &[], columns);
        assert_eq!(terminal.end(), 0);
        let shown = terminal.wait("qwen");
        assert!(
            shown.contains("mm…") && !shown.contains('\u{1b}'),
            "{shown}"
        );
        for line in shown.lines() {
            assert!(
                line.trim_end().chars().count() <= usize::from(columns),
                "{line}"
            );
        }
    }
    // What is piped is whole.
    assert!(
        admin
            .api()
            .cli(&["get", "services"])
            .done()
            .contains(&"m".repeat(90))
    );
}

#[test]
fn a_watched_list_is_shown_again_when_it_has_changed() {
    let admin = furnished();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let watch = ["get", "services", "-w", "--server", &admin.url()];
    let mut child = Command::new(PROGRAM)
        .args(watch)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap();
    until("the list", || read("out").contains("qwen").then_some(()));
    let asked = admin.asked().len();
    until("to be asked again", || {
        (admin.asked().len() > asked).then_some(())
    });
    assert_eq!(
        read("out").matches("NAME").count(),
        1,
        "nothing has changed"
    );
    // While nobody answers it waits.
    admin.set(Mood::Gone);
    until("to be told of", || {
        read("err").contains("is the gateway running").then_some(())
    });
    admin.put("service", json!({"name": "newcomer"}));
    admin.set(Mood::Well);
    until("the change", || {
        read("out").contains("newcomer").then_some(())
    });
    assert_eq!(read("out").matches("NAME").count(), 2);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();

    // On a terminal the list takes its own place, and Ctrl-C ends it.
    let url = admin.url();
    let mut terminal = Terminal::run(&["get", "targets", "-w", "--server", &url], &[], 100);
    assert!(terminal.wait("t2").contains("\x1b[2J"));
    terminal.press("\u{3}");
    terminal.end();
    // What is refused stays refused.
    admin
        .api()
        .cli(&["get", "service", "nobody", "-w"])
        .failed(1, &["There is no service nobody"]);
}

#[test]
fn the_admin_socket_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let theirs = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            theirs
                .lock()
                .unwrap()
                .push(String::from_utf8(head).unwrap());
            let body =
                json!({"items": [{"name": "local", "gateway": "g"}], "revision": 1}).to_string();
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        }
    });
    let server = format!("unix:{}", path.display());
    let environment = [
        ("TOLLGATE_SERVER", server.as_str()),
        ("TOLLGATE_TOKEN", "secret-token"),
    ];
    let table = program(&["get", "keys"], &environment, None).done();
    assert!(table.contains("local"), "{table}");
    let head = asked.lock().unwrap().first().unwrap().to_lowercase();
    assert!(
        head.starts_with("get /v1/keys http/1.1\r\n") && head.contains("host: localhost\r\n"),
        "{head}"
    );
    assert!(
        head.contains("authorization: bearer secret-token"),
        "{head}"
    );
    let nowhere = format!("unix:{}/none.sock", folder.path().display());
    program(&["get", "keys", "--server", &nowhere], &[], None)
        .failed(1, &["none.sock", "is the gateway running"]);
}
