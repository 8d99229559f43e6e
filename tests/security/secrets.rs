//! No secret is written, logged, measured or told, whatever happens.
//!
//! One process at its most talkative, with every kind of secret it can be given, meets good and bad requests of many kinds. Then everything that came
//! out of it is searched.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{
    Api, CHAT, Client, H2Client, Process, Reply, Upstream, bearer, chat, closed_address, engine,
    padded, program, request, runtime, service, streamed, until,
};

/// What must be seen nowhere, by what it is.
const SECRETS: [(&str, &str); 12] = [
    (
        "a key of the file",
        "tg_f11e_aaaa1111aaaa1111aaaa1111aaaa1111",
    ),
    (
        "a key of the file that is off",
        "tg_0ff0_bbbb2222bbbb2222bbbb2222bbbb2222",
    ),
    (
        "a key nobody has",
        "tg_m155_cccc3333cccc3333cccc3333cccc3333",
    ),
    ("the admin token", "admin-dddd4444dddd4444dddd4444"),
    ("a wrong admin token", "admin-eeee5555eeee5555eeee5555"),
    ("an upstream's api_key", "sk-ffff6666ffff6666ffff6666"),
    ("an upstream's header", "header-gggg7777gggg7777gggg7777"),
    (
        "a client's own credential",
        "client-hhhh8888hhhh8888hhhh8888",
    ),
    (
        "a token the identity service knows",
        "good-iiii9999iiii9999iiii9999",
    ),
    ("a token it does not know", "bad-jjjj0000jjjj0000jjjj0000"),
    (
        "what the identity service is asked with",
        "service-kkkk1212kkkk1212kkkk",
    ),
    (
        "a JSON Web Token",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJsbGxsMzQzNCJ9.bGxsbDM0MzRsbGxsMzQzNA",
    ),
];

fn secret(what: &str) -> &'static str {
    let found = SECRETS.iter().find(|(name, _)| *name == what);
    found.unwrap().1
}

/// Everything a client or an operator was told.
#[derive(Default)]
struct Told(Vec<(String, Vec<u8>)>, BTreeMap<u16, usize>);

impl Told {
    fn note(&mut self, what: &str, reply: &Reply) {
        let headers = format!("{:?}{:?}", reply.headers, reply.trailers);
        *self.1.entry(reply.status).or_default() += 1;
        self.0
            .push((what.to_owned(), [headers.as_bytes(), &reply.body].concat()));
    }

    fn text(&mut self, what: &str, text: impl Into<Vec<u8>>) {
        self.0.push((what.to_owned(), text.into()));
    }
}

fn configuration(engine: &str, identity: &str, keys: &str) -> String {
    let key = |name: &str, what: &str, more: &str| {
        let secret = secret(what);
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n{more}\n")
    };
    let limit = "limits = { global = { limit = 40, window = \"1h\" } }";
    let dead = closed_address();
    let asked = secret("what the identity service is asked with");
    [
        "[server]\nstate = \"./tollgate.db\"\n".to_owned(),
        "[log]\nlevel = \"trace\"\naccess = \"./access.log\"\n".to_owned(),
        format!("[admin]\naddress = \"$ADMIN\"\ntoken = \"{}\"\n", secret("the admin token")),
        "[[gateway]]\nname = \"main\"\nhosts = [\"main.test\"]\n".to_owned(),
        format!("[[gateway]]\nname = \"asked\"\nhosts = [\"asked.test\"]\nauth = {{ type = \"http\", url = \"{identity}\", headers = {{ X-Own = \"{asked}\" }} }}\n"),
        format!("[[gateway]]\nname = \"signed\"\nhosts = [\"signed.test\"]\nauth = {{ type = \"jwt\", jwks_file = \"{keys}\" }}\n"),
        key("filed", "a key of the file", &format!("models = [\"m\", \"dead\", \"nowhere\"]\n{limit}")),
        key("off", "a key of the file that is off", "active = false"),
        format!("[[upstream]]\nname = \"pool\"\ntargets = [\"{engine}\"]\napi_key = \"{}\"\nheaders = {{ X-Own = \"{}\" }}\n", secret("an upstream's api_key"), secret("an upstream's header")),
        "[[service]]\nname = \"m\"\nmodels = [\"m\", \"closed\"]\nupstream = \"pool\"\nretry = \"off\"\n".to_owned(),
        service("dead", "dead", &format!("http://{dead}")),
        service("open", "open", engine) + "auth = \"none\"\n",
    ]
    .concat()
}

/// Header lines for a host.
fn at(host: &str, fields: &str) -> String {
    format!("host: {host}.test\r\ncontent-type: application/json\r\n{fields}")
}

fn traffic(process: &Process, key: &str, told: &mut Told) {
    let main = |fields: &str| at("main", fields);
    let key = bearer(key);
    let wrong = bearer(secret("a key nobody has"));
    let off = bearer(secret("a key of the file that is off"));
    let own = bearer(secret("a client's own credential"));
    let other = secret("a key nobody has");
    let jwt = bearer(secret("a JSON Web Token"));
    let good = bearer(secret("a token the identity service knows"));
    let bad = bearer(secret("a token it does not know"));
    let sim = |what: &str| main(&format!("{key}x-sim: {what}\r\n"));
    let mut requests = vec![
        (main(&key), chat("m")),
        (main(&key), streamed("m", 5)),
        (main(&wrong), chat("m")),
        (main(&off), chat("m")),
        (main(&format!("x-api-key: {other}\r\n")), chat("m")),
        (
            main(&format!("api-key: {other}\r\ncookie: key={other}\r\n")),
            chat("m"),
        ),
        (main(&key), chat("closed")),
        (main(&key), chat("nowhere")),
        (main(&key), chat("dead")),
        (main(&own), chat("open")),
        (main(&key), "{".to_owned()),
        (at("nobody", &key), chat("m")),
        (at("asked", &good), chat("m")),
        (at("asked", &bad), chat("m")),
        (at("signed", &jwt), chat("m")),
        (at("signed", &key), chat("m")),
    ];
    for fault in [
        "status=500",
        "status=429",
        "status=401",
        "drop=reset",
        "drop=close",
        "reset-after=0",
        "close-after=1",
    ] {
        requests.push((sim(fault), chat("m")));
    }
    for fault in [
        "reset-after=2",
        "close-after=2",
        "garbage-after=2",
        "malformed-after=2",
    ] {
        requests.push((sim(fault), streamed("m", 5)));
    }
    for (fields, body) in &requests {
        let mut client = process.client();
        client.send(request("POST", CHAT, fields, body));
        if let Ok(reply) = client.try_reply() {
            told.note("an answer", &reply);
        }
    }
    let large = String::from_utf8(padded("m", 200_000)).unwrap();
    let secret_path = format!("/v1/models?api_key={other}&token={other}");
    for bytes in [
        request("POST", CHAT, &main(&key), large),
        request("GET", &secret_path, &main(&wrong), ""),
        request("GET", "/v1/models", &main(&key), ""),
        request("PUT", "/v1/nowhere", &main(&key), ""),
        request("POST", CHAT, &main(&key.replace(": ", " : ")), chat("m")),
        request(
            "POST",
            CHAT,
            &main(&wrong.replace("tg_", "\u{1}tg_")),
            chat("m"),
        ),
        request(
            "POST",
            CHAT,
            &main(&(key.clone() + "transfer-encoding: chunked\r\n")),
            chat("m"),
        ),
        request(
            "POST",
            CHAT,
            &main(&format!("authorization: Basic {other}\r\n")),
            chat("m"),
        ),
        request(
            "POST",
            CHAT,
            &main(&bearer(&format!("{other}{}", "x".repeat(100_000)))),
            chat("m"),
        ),
        format!("{other}\r\n\r\n").into_bytes(),
        format!("GET /{other} HTTP/9.9\r\n{wrong}\r\n").into_bytes(),
    ] {
        let mut client = process.client();
        let _ = client.try_send(&bytes);
        if let Ok(reply) = client.try_reply() {
            told.note("an answer to what is malformed", &reply);
        }
    }
    // A client that leaves in the middle.
    let mut client = process.client();
    client.send(request("POST", CHAT, &sim("delay=30s"), chat("m")));
    client.half_close();
    drop(client);
}

fn http2(process: &Process, told: &mut Told) {
    let client = runtime().block_on(H2Client::connect(process.address));
    for what in ["a key of the file", "a key nobody has"] {
        let value = format!("Bearer {}", secret(what));
        let fields = [("authorization", value.as_str()), ("host", "main.test")];
        if let Ok(reply) = client.post(CHAT, &fields, chat("m"), true) {
            told.note("an answer over HTTP/2", &reply);
        }
    }
}

/// Keys are made, rotated and revoked, well and badly; the secrets that came of it.
fn administration(process: &Process, told: &mut Told) -> Vec<String> {
    let api: Api = process.api().with_token(secret("the admin token"));
    let made = api.create(&json!({"name": "made", "gateway": "main", "models": ["m"]}));
    let rotated = api.rotate("made", "1h");
    let gone = api.create(&json!({"name": "gone", "gateway": "main"}));
    api.revoke("gone");
    let other = secret("a key nobody has");
    for (method, path, body) in [
        (
            "POST",
            "/v1/keys",
            json!({"name": "made", "gateway": "main", "secret": other}),
        ),
        (
            "POST",
            "/v1/keys",
            json!({"name": "x", "gateway": "main", "secrt": other}),
        ),
        (
            "POST",
            "/v1/keys",
            json!({"name": "x", "gateway": 7, "hash": other, "id": other}),
        ),
        (
            "POST",
            "/v1/keys",
            json!({"name": "x", "gateway": "main", "previous": [{"hash": other}]}),
        ),
        ("POST", "/v1/keys/filed/rotate", json!({})),
        (
            "POST",
            "/v1/keys/made/rotate",
            json!({"grace": 7, "secret": other}),
        ),
        ("DELETE", "/v1/keys/nobody", Value::Null),
        ("PUT", "/v1/keys", json!({"secret": other})),
        ("GET", "/v1/keys", Value::Null),
        ("GET", "/v1/keys/made", Value::Null),
        ("GET", "/v1/usage?by=model", Value::Null),
        ("GET", "/v1/usage?by=key", Value::Null),
    ] {
        // Answered with a secret of its own, which is shown once.
        let reply = api.ask(method, path, &body);
        match reply.status {
            201 => {
                let once = reply.json()["secret"].as_str().unwrap().to_owned();
                told.text("a new key", reply.text().replace(&once, ""));
            }
            _ => told.note(path, &reply),
        }
    }
    let wrong = process.api().with_token(secret("a wrong admin token"));
    told.note("without the token", &wrong.get("/v1/keys"));
    for page in ["/metrics", "/readyz", "/healthz"] {
        told.note(page, &process.api().get(page));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t"), secret("the admin token")).unwrap();
    let server = format!("http://{}", process.admin);
    for verb in [
        &["key", "list"][..],
        &["key", "list", "-o", "json"],
        &["usage"],
        &["key", "revoke", "x"],
    ] {
        let place = ["--server", &server, "--token-file", "t"];
        let ran = program(&[verb, &place].concat(), &[], Some(folder.path()));
        told.text("the command line", ran.stdout + &ran.stderr);
    }
    let ran = wrong.cli(&["key", "list"]);
    told.text("the command line, refused", ran.stdout + &ran.stderr);
    vec![made, rotated, gone]
}

/// What the process has written, as bytes: the state file with its log, too.
fn written(process: &Process, told: &mut Told) {
    for name in [
        "stdout",
        "stderr",
        "access.log",
        "tollgate.db",
        "tollgate.db-wal",
        "tollgate.db-shm",
    ] {
        if let Ok(bytes) = std::fs::read(process.path(name)) {
            told.text(name, bytes);
        }
    }
}

#[test]
fn no_secret_shows_anywhere() {
    let engine = engine();
    let identity = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let good = request.header("authorization").unwrap_or_default();
            let status = if good.contains("good") {
                "200 OK"
            } else {
                "401 No"
            };
            let body = r#"{"sub":"somebody"}"#;
            connection.send(format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    let rsa = r#"{"kty":"RSA","kid":"x","alg":"RS256","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw","e":"AQAB"}"#;
    std::fs::write(&keys, format!("{{\"keys\":[{rsa}]}}")).unwrap();
    let toml = configuration(&engine.url(), &identity.url(), keys.to_str().unwrap());
    let mut process = Process::start(&toml);
    let mut told = Told::default();
    let made = administration(&process, &mut told);
    traffic(&process, secret("a key of the file"), &mut told);
    for key in &made {
        traffic(&process, key, &mut told);
    }
    http2(&process, &mut told);
    // One limit is used up, so that refusals of that kind are there as well.
    let key = bearer(secret("a key of the file"));
    let limited = until("the limit", || {
        let mut client: Client = process.client();
        client.send(request("POST", CHAT, &at("main", &key), chat("m")));
        let reply = client.reply();
        (reply.status == 429).then_some(reply)
    });
    told.note("a limit", &limited);
    // With the last word of each kind in its place: before the end, and after it.
    let api = process.api().with_token(secret("the admin token"));
    for path in [
        "/metrics",
        "/v1/keys",
        "/v1/usage?by=model",
        "/v1/usage?by=service",
    ] {
        told.note(path, &api.get(path));
    }
    written(&process, &mut told);
    process.signal("TERM");
    process.end();
    written(&process, &mut told);

    // The search would find something: what was to be met was met, and what is no secret is there.
    for status in [200, 400, 401, 403, 404, 405, 409, 421, 422, 429, 500, 502] {
        assert!(
            told.1.contains_key(&status),
            "no {status} among {:?}",
            told.1
        );
    }
    let of = |name: &str| {
        told.0
            .iter()
            .filter(|(what, _)| what == name)
            .map(|(_, bytes)| bytes.clone())
            .collect::<Vec<_>>()
            .concat()
    };
    let has = |name: &str, text: &str| {
        of(name)
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(has("access.log", "\"key\":\"filed\"") && has("access.log", "unknown key"));
    assert!(has("stderr", "\"message\":\"ready\""));
    assert!(
        has("tollgate.db", "\"hash\":\"sha256:") || has("tollgate.db-wal", "\"hash\":\"sha256:")
    );
    assert!(
        engine
            .requests()
            .iter()
            .any(|request| format!("{request:?}").contains(secret("an upstream's api_key")))
    );

    let made = made
        .iter()
        .map(|secret| ("a key that was made", secret.as_str()));
    for (kind, secret) in SECRETS.into_iter().chain(made) {
        // The part nobody may see: the identifier of a key is shown.
        let core = secret.rsplit(['_', '.']).next().unwrap();
        for (what, bytes) in &told.0 {
            let found = bytes
                .windows(core.len())
                .position(|window| window == core.as_bytes());
            if let Some(found) = found {
                let around = &bytes[found.saturating_sub(200)..(found + 100).min(bytes.len())];
                panic!(
                    "{kind} shows in {what}: {}",
                    String::from_utf8_lossy(around)
                );
            }
        }
    }
}
