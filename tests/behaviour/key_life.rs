//! Keys over their life as an operator sees it: `tollgate key` against a running process, and what outlives that process.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::model::KeyHash;
use tollgate_sdk::document::FromText;

use crate::harness::{
    Api, Client, Process, Ran, Upstream, bearer, closed_address, engine, program, request, service,
    until,
};

const OF_FILE: &str = "tg_f11e_0123456789abcdef0123456789abcdef";
const TOKEN: &str = "admin-token-of-this-test";

/// Two services, one key in the file, state in a file.
fn start(engine: &str, more: &str) -> Process {
    let gateway = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    let key = format!("[[key]]\nname = \"filed\"\ngateway = \"main\"\nsecret = \"{OF_FILE}\"\n");
    let server = "[server]\nstate = \"./tollgate.db\"\n";
    let services = service("a", "a", engine) + &service("b", "b", engine);
    Process::start(&format!("{server}{gateway}{key}{services}{more}"))
}

fn status(process: &Process, model: &str, secret: &str) -> u16 {
    process.client().chat(model, &bearer(secret)).status
}

#[track_caller]
fn assert_form(secret: &str) {
    let parts: Vec<&str> = secret.split('_').collect();
    let hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    assert!(matches!(parts[..], ["tg", _, _]), "{secret}");
    assert!(!parts[1].is_empty() && hex(parts[1]), "{secret}");
    assert!(parts[2].len() == 64 && hex(parts[2]), "{secret}");
}

/// The secret is all of standard output, and in no other stream.
#[track_caller]
fn shown_once(ran: Ran) -> String {
    let told = ran.stderr.clone();
    let secret = ran.done();
    let secret = secret.strip_suffix('\n').unwrap().to_owned();
    assert_form(&secret);
    assert!(told.contains("once") && !told.contains(&secret), "{told}");
    secret
}

/// Neither a secret nor a hash of one is anywhere in it.
#[track_caller]
fn assert_hides(text: &str, secrets: &[&str]) {
    for secret in secrets {
        let core = secret.rsplit('_').next().unwrap();
        let hash = KeyHash::of(secret.as_bytes()).to_text();
        let hash = hash.trim_start_matches("sha256:");
        assert!(!text.contains(core) && !text.contains(hash), "{text}");
    }
}

#[test]
fn made_shown_once_listed_rotated_and_revoked() {
    let engine = engine();
    let mut process = start(&engine.url(), "");
    let api = process.api();
    let create = ["key", "create"];
    let with = |arguments: &[&str]| api.cli(&[&create, arguments].concat());

    let alice = shown_once(with(&["alice", "--gateway", "main"]));
    assert_eq!(status(&process, "a", &alice), 200, "it works at once");

    let scoped = [
        "--model",
        "a*",
        "--service",
        "a",
        "--expires",
        "30d",
        "-o",
        "json",
    ];
    let made = with(&[&["bob", "--gateway", "main"], &scoped[..]].concat()).done();
    let made: Value = serde_json::from_str(&made).unwrap();
    let fields: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["expires_at", "id", "name", "secret"]);
    let bob = made["secret"].as_str().unwrap().to_owned();
    assert_form(&bob);
    assert_eq!(made["name"], "bob");
    assert_eq!(made["id"].as_str(), bob.split('_').nth(1));
    let end: jiff::Timestamp = made["expires_at"].as_str().unwrap().parse().unwrap();
    let left = end.as_second() - jiff::Timestamp::now().as_second();
    assert!((30 * 86_400 - 60..=30 * 86_400).contains(&left), "{left}");
    assert_eq!(status(&process, "a", &bob), 200);
    assert_eq!(status(&process, "b", &bob), 403);

    let secrets = [alice.as_str(), &bob, OF_FILE];
    let table = api.cli(&["key", "list"]).done();
    let list = api.cli(&["key", "list", "-o", "json"]).done();
    for text in [&table, &list, &api.get("/v1/keys/alice").text()] {
        assert_hides(text, &secrets);
    }
    let row = |name: &str| {
        table
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("filed").ends_with("file") && row("alice").ends_with("api"));
    assert!(row("bob").contains("a,a*"), "{table}");
    let items: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(items.as_array().unwrap().len(), 3, "{items}");

    let again = with(&["alice", "--gateway", "main"]);
    again.failed(1, &["already", "alice"]);
    with(&["filed", "--gateway", "main"]).failed(1, &["already", "filed"]);
    let reply = api.ask(
        "POST",
        "/v1/keys",
        &json!({"name": "alice", "gateway": "main"}),
    );
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (409, &json!("exists"))
    );
    assert_eq!(status(&process, "a", &alice), 200, "the first is untouched");

    let named = [
        "--service",
        "nobody",
        "--service",
        "a",
        "--service",
        "neither",
    ];
    let wrong = with(&[&["carol", "--gateway", "nowhere"], &named[..]].concat());
    wrong.failed(
        1,
        &[
            "gateway: ",
            "\"nowhere\"",
            "services[0]: ",
            "services[2]: ",
            "\"neither\"",
        ],
    );
    let document = json!({"name": "carol", "gateway": "nowhere", "services": ["nobody", "a"], "modles": ["x"], "expires_at": "soon"});
    let reply = api.ask("POST", "/v1/keys", &document);
    assert_eq!(reply.status, 422, "{}", reply.text());
    let details = reply.json()["error"]["details"].clone();
    let details = details.as_array().unwrap();
    let paths: Vec<&str> = details
        .iter()
        .map(|d| d["path"].as_str().unwrap())
        .collect();
    assert!(
        paths.contains(&"expires_at") && paths.contains(&"modles"),
        "{details:?}"
    );
    assert!(
        reply.text().contains("models"),
        "the nearest name: {}",
        reply.text()
    );
    assert_eq!(api.get("/v1/keys/carol").status, 404);

    for verb in ["rotate", "revoke"] {
        api.cli(&["key", verb, "filed"])
            .failed(1, &["filed", "configuration file"]);
        api.cli(&["key", verb, "carol"])
            .failed(1, &["There is no key"]);
    }
    for (method, path) in [
        ("POST", "/v1/keys/filed/rotate"),
        ("DELETE", "/v1/keys/filed"),
    ] {
        let reply = api.ask(method, path, &Value::Null);
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (409, &json!("owned_by_file"))
        );
    }
    assert_eq!(status(&process, "a", OF_FILE), 200);

    let second = shown_once(api.cli(&["key", "rotate", "alice"]));
    assert_eq!(status(&process, "a", &alice), 200, "for its grace");
    assert_eq!(status(&process, "a", &second), 200);
    let dave = shown_once(with(&["dave", "--gateway", "main"]));
    let third = shown_once(api.cli(&["key", "rotate", "dave", "--grace", "0s"]));
    assert_eq!(status(&process, "a", &dave), 401, "no grace");
    assert_eq!(status(&process, "a", &third), 200);
    let revoked = api.cli(&["key", "revoke", "bob"]);
    assert_eq!(revoked.done(), "");
    assert_eq!(status(&process, "a", &bob), 401);

    let keys = |api: &Api| {
        let mut keys = api.get("/v1/keys").json()["items"].clone();
        for key in keys.as_array_mut().unwrap() {
            if key["managed_by"] == "file" {
                // Of what stands in the file it is the process's first.
                key["revision"].take();
            }
        }
        keys
    };
    let before = keys(&api);
    let stands = |process: &Process| {
        for secret in [&alice, &second, &third, OF_FILE] {
            assert_eq!(status(process, "a", secret), 200, "{secret}");
        }
        for secret in [&bob, &dave] {
            assert_eq!(status(process, "a", secret), 401, "{secret}");
        }
    };
    process.signal("TERM");
    process.end();
    process.restart();
    stands(&process);
    assert_eq!(keys(&api), before);

    // What was answered is kept, however the process ends.
    let erin = api.create(&json!({"name": "erin", "gateway": "main"}));
    api.revoke("dave");
    process.signal("KILL");
    process.end();
    process.restart();
    assert_eq!(status(&process, "b", &erin), 200);
    assert_eq!(status(&process, "a", &third), 401);
    api.revoke("alice");
    process.signal("TERM");
    process.end();
    process.restart();
    for secret in [&alice, &second, &third] {
        assert_eq!(status(&process, "a", secret), 401, "{secret}");
    }
    // A name that is free again can be taken.
    let anew = api.create(&json!({"name": "alice", "gateway": "main"}));
    assert_eq!(status(&process, "a", &anew), 200);
    assert_eq!(status(&process, "a", &second), 401);
}

#[test]
fn exit_codes_and_errors_tell_what_is_wrong() {
    let engine = engine();
    let admin = format!("[admin]\naddress = \"$ADMIN\"\ntoken = \"{TOKEN}\"\n");
    let process = start(&engine.url(), &admin);
    let api = process.api().with_token(TOKEN);
    let made = api.cli(&["key", "create", "a", "--gateway", "main"]).done();
    for arguments in [
        &["key"][..],
        &["key", "nonsense"],
        &["key", "create", "x"],
        &[
            "key",
            "create",
            "x",
            "--gateway",
            "main",
            "--expires",
            "soon",
        ],
        &["key", "create", "x", "--gateway", "main", "--limits", "{"],
        &[
            "key",
            "create",
            "x",
            "--gateway",
            "main",
            "--rotate-every",
            "1h",
        ],
        &["key", "rotate"],
        &["key", "rotate", "a", "--grace", "long"],
        &["key", "list", "-o", "xml"],
        &["usage", "--by", "colour"],
        &["usage", "-o", "xml"],
    ] {
        api.cli(arguments).failed(2, &[]);
    }
    assert_eq!(
        status(&process, "a", made.trim_end()),
        200,
        "nothing has changed"
    );
    api.cli(&["usage", "--since", "nonsense"])
        .failed(1, &["Since: ", "24h"]);
    api.cli(&["key", "create", "Not A Name", "--gateway", "main"])
        .failed(1, &["name: "]);

    let wrong = "a-token-that-is-wrong";
    process
        .api()
        .cli(&["key", "list"])
        .failed(1, &["token", "$TOLLGATE_TOKEN", "--token-file"]);
    let refused = process.api().with_token(wrong).cli(&["usage"]);
    refused.failed(1, &["token"]);
    assert!(!refused.stderr.contains(wrong), "{}", refused.stderr);
    let server = format!("http://{}", process.admin);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let at = |server: &str, file: &str| {
        let arguments = ["key", "list", "--server", server, "--token-file", file];
        program(&arguments, &[], Some(folder.path()))
    };
    assert!(at(&server, "token").done().contains("filed"));
    at(&server, "nowhere").failed(1, &["nowhere"]);

    let dead = format!("http://{}", closed_address());
    at(&dead, "token").failed(1, &[&dead, "is the gateway running"]);
    let other = Upstream::obliging();
    at(&other.url(), "token").failed(1, &[&other.url(), "no admin listener"]);
    let mute = Upstream::closing("");
    at(&mute.url(), "token").failed(1, &[&mute.url()]);
    for wrong in [
        "127.0.0.1:1",
        "localhost:9091",
        "ftp://127.0.0.1:1",
        "http://",
        "nonsense",
        "",
    ] {
        at(wrong, "token").failed(1, &["--server"]);
    }
}

/// A change is whole or not at all, also when whoever asked for it leaves before it is stored.
#[test]
fn who_leaves_early_leaves_nothing_half_done() {
    let engine = engine();
    let process = start(&engine.url(), "");
    let api = process.api();
    let secret = api.create(&json!({"name": "a", "gateway": "main"}));
    assert_eq!(status(&process, "a", &secret), 200);
    let mut other = rusqlite::Connection::open(process.path("tollgate.db")).unwrap();
    for name in ["a", "b"] {
        let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let lock = lock.unwrap();
        let mut client = Client::connect(process.admin);
        let body = json!({"name": "b", "gateway": "main"}).to_string();
        client.send(match name {
            "a" => request("DELETE", "/v1/keys/a", "", ""),
            _ => request("POST", "/v1/keys", "", body),
        });
        // It has begun once the next change has to wait for it; whoever only reads does not.
        let next = || request("DELETE", "/v1/keys/nobody", "", "");
        until("the change to begin", || {
            let mut waiting = Client::connect(process.admin);
            waiting.patience(Duration::from_millis(300));
            waiting.send(next());
            waiting.try_reply().is_err().then_some(())
        });
        assert_eq!(api.get("/v1/keys").status, 200);
        drop(client);
        // The gateway notices who has left before it answers anybody who comes later.
        assert_eq!(api.get("/healthz").status, 200);
        lock.rollback().unwrap();
        let stored = until("the change to be stored", || {
            let count = "SELECT count(*) FROM resource WHERE kind = 'key' AND name = ?1";
            let found = { &other }.query_row(count, [name], |row| row.get::<_, i64>(0));
            found.ok().filter(|found| (*found == 1) == (name == "b"))
        });
        let mut client = Client::connect(process.admin);
        client.send(next());
        assert_eq!(client.reply().status, 404, "the change is done");
        let listed = until("the list", || match api.get("/v1/keys") {
            reply if reply.status == 200 => Some(reply.text()),
            _ => None,
        });
        assert_eq!(
            listed.contains(&format!("\"name\":\"{name}\"")),
            stored == 1,
            "{listed}"
        );
    }
    assert_eq!(
        status(&process, "a", &secret),
        401,
        "it is stored as revoked, and works"
    );
    let again = api.ask("POST", "/v1/keys", &json!({"name": "b", "gateway": "main"}));
    assert_eq!(again.status, 409);
}
