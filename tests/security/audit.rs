//! The audit: every write through the admin API leaves a line, also a refused one, and no line tells a secret.

use serde_json::{Value, json};

use crate::harness::{Api, Client, Process, bearer, closed_address, service, sha256, until};

const TOKEN: &str = "admin-token-0123456789";

fn start(log: &str) -> Process {
    let target = format!("http://{}", closed_address());
    let toml = format!(
        "[admin]\naddress = \"$ADMIN\"\ntoken = \"{TOKEN}\"\n[log]\naccess = \"off\"\n{log}\n"
    );
    let gateway = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    let key = "[[key]]\nname = \"filed\"\ngateway = \"main\"\nsecret = \"tg_0_0123456789abcdef\"\n";
    Process::start(&format!(
        "{toml}{gateway}{key}{}",
        service("a", "a", &target)
    ))
}

fn lines(process: &Process) -> Vec<Value> {
    let log = process.read("stderr");
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}

/// Waits for so many lines.
#[track_caller]
fn wait_for(process: &Process, count: usize) -> Vec<Value> {
    until("the audit's lines", || {
        let lines = lines(process);
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn every_write_leaves_its_line() {
    let process = start("");
    let api = process.api().with_token(TOKEN);
    let who = format!("token:{}", &sha256(TOKEN.as_bytes())[..8]);
    let mut expected = Vec::new();
    let mut write = |api: &Api, method: &str, path: &str, body: Value, told: (&str, &str)| {
        let status = api.ask(method, path, &body).status;
        expected.push((told.0.to_owned(), told.1.to_owned(), status));
        status
    };
    let new = json!({"name": "new", "gateway": "main"});
    let create = ("POST /v1/keys", "new");
    assert_eq!(write(&api, "POST", "/v1/keys", new.clone(), create), 201);
    assert_eq!(write(&api, "POST", "/v1/keys", new.clone(), create), 409);
    let wrong = json!({"name": "wrong", "gateway": "nowhere"});
    let mistaken = ("POST /v1/keys", "wrong");
    assert_eq!(write(&api, "POST", "/v1/keys", wrong, mistaken), 422);
    let rotate = ("POST /v1/keys/{name}/rotate", "new");
    assert_eq!(
        write(&api, "POST", "/v1/keys/new/rotate", Value::Null, rotate),
        200
    );
    let gone = ("DELETE /v1/keys/{name}", "new");
    assert_eq!(
        write(&api, "DELETE", "/v1/keys/new", Value::Null, gone),
        204
    );
    let filed = ("DELETE /v1/keys/{name}", "filed");
    assert_eq!(
        write(&api, "DELETE", "/v1/keys/filed", Value::Null, filed),
        409
    );
    let missing = ("DELETE /v1/keys/{name}", "");
    assert_eq!(
        write(&api, "DELETE", "/v1/keys/NO%0aname", Value::Null, missing),
        404
    );
    assert_eq!(
        write(
            &api,
            "POST",
            "/v1/reload",
            Value::Null,
            ("POST /v1/reload", "")
        ),
        200
    );
    // Reading leaves none.
    for path in [
        "/v1/keys",
        "/v1/status",
        "/v1/keys/filed",
        "/v1/usage",
        "/metrics",
    ] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    let refused = process.api().with_token("wrong-token-of-somebody");
    assert_eq!(
        write(&refused, "DELETE", "/v1/keys/filed", Value::Null, filed),
        401
    );
    assert_eq!(
        write(
            &process.api(),
            "POST",
            "/v1/keys",
            new,
            ("POST /v1/keys", "")
        ),
        401
    );

    let found = wait_for(&process, expected.len());
    let told: Vec<(String, String, u16)> = found
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (
                text("call"),
                text("name"),
                line["status"].as_u64().unwrap() as u16,
            )
        })
        .collect();
    assert_eq!(told, expected);
    for (line, _) in found.iter().zip(0..8) {
        assert_eq!(line["who"], who);
        let at: jiff::Timestamp = line["at"].as_str().unwrap().parse().unwrap();
        assert!(at <= jiff::Timestamp::now());
        let kind = if line["call"] == "POST /v1/reload" {
            ""
        } else {
            "key"
        };
        assert_eq!(line["kind"], kind);
    }
    assert_ne!(found[8]["who"], who);
    assert_eq!(found[9]["who"], "local:127.0.0.1");
    let revisions = |line: &Value| {
        (
            line["revision_before"].clone(),
            line["revision_after"].clone(),
        )
    };
    assert_eq!(revisions(&found[0]), (json!(1), json!(2)));
    assert_eq!(revisions(&found[1]), (json!(2), json!(2)));
    assert_eq!(revisions(&found[4]), (json!(3), json!(4)));
}

#[test]
fn no_secret_and_no_line_of_the_callers_own() {
    let process = start("level = \"error\"");
    let api = process.api().with_token(TOKEN);
    let secret = api.create(&json!({"name": "k", "gateway": "main"}));
    let chosen =
        json!({"name": "forged\nname", "gateway": "main", "secret": "chosen-by-the-client"});
    api.ask("POST", "/v1/keys", &chosen);
    api.send(
        "DELETE",
        "/v1/keys/x%22%7d%0a%7b%22target%22",
        &bearer(TOKEN),
        b"",
    );
    api.send("DELETE", "/v1/keys/%ff", &bearer(TOKEN), b"");
    api.send("POST", "/v1/keys", &bearer("tg_guessed_0123456789"), b"{}");
    // The level of the log is about something else.
    let found = wait_for(&process, 5);
    assert_eq!(found.len(), 5, "{found:?}");
    let log = process.read("stderr");
    for hidden in [
        TOKEN,
        &secret,
        "chosen-by-the-client",
        "tg_guessed_0123456789",
        "forged",
    ] {
        assert!(!log.contains(hidden), "{hidden} is in {log}");
    }
}

/// Who leaves in the middle of a write leaves a line all the same.
#[test]
fn who_leaves_is_told_of() {
    let process = start("");
    let mut client = Client::connect(process.admin);
    let head = format!(
        "POST /v1/keys HTTP/1.1\r\nhost: test\r\n{}content-length: 100\r\n\r\n{{\"name\":",
        bearer(TOKEN)
    );
    client.send(head);
    drop(client);
    let found = wait_for(&process, 1);
    assert_eq!(
        (&found[0]["status"], &found[0]["call"]),
        (&json!(400), &json!("POST /v1/keys"))
    );
}
