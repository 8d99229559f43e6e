//! JSON Web Tokens: who may pass with one, to what, and what upstreams and logs see of it.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{
    Gateway, ISSUER, Mood, Reply, Signer, Upstream, Web, bearer, believer, claims, engine, key_set,
    keys_at, keys_in, service, unix_seconds, until,
};

/// The usual claims with one changed; null takes it out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("ann");
    match value.is_null() {
        true => drop(claims.as_object_mut().unwrap().remove(name)),
        false => claims[name] = value,
    }
    claims
}

fn ask(gateway: &Gateway, model: &str, token: &str) -> Reply {
    gateway.client().chat(model, &bearer(token))
}

fn models(gateway: &Gateway, token: &str) -> Vec<String> {
    let list = gateway.client().get("/v1/models", &bearer(token)).json();
    let data = list["data"].as_array().unwrap().iter();
    data.map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Each algorithm, the set in a file and at an address; and nobody passes with what everybody knows.
#[test]
fn tokens_of_each_algorithm_pass_and_go_no_further() {
    let signers = [Signer::rsa("r"), Signer::ec("e"), Signer::ed("d")];
    let set = key_set(&signers.each_ref());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, &set).unwrap();
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    for keys in [keys_in(&path), keys_at(&web)] {
        let upstream = Upstream::obliging();
        let toml = believer(&keys, ", header = \"X-Token\"") + &service("m", "m", &upstream.url());
        let gateway = Gateway::start(&toml);
        for signer in &signers {
            let token = signer.sign(&claims("ann"));
            for fields in [
                bearer(&token),
                format!("x-api-key: {token}\r\n"),
                format!("x-token: {token}\r\nauthorization: Bearer mine\r\n"),
            ] {
                gateway.client().chat("m", &fields).assert_ok();
            }
            let signature = token.rsplit('.').next().unwrap();
            for bytes in upstream.received() {
                let sent = String::from_utf8_lossy(&bytes).to_lowercase();
                assert!(!sent.contains(&signature.to_lowercase()), "{sent}");
                assert!(!sent.contains("bearer"), "{sent}");
            }
        }
        let passed = upstream.requests().len();
        assert_eq!(passed, 9);
        let mut shared = Header::new(Algorithm::HS256);
        for (signer, id) in signers.iter().zip(["r", "e", "d"]) {
            shared.kid = Some(id.to_owned());
            for known in &signer.known {
                let key = EncodingKey::from_secret(known);
                let forged = encode(&shared, &claims("eve"), &key).unwrap();
                ask(&gateway, "m", &forged).assert_refused(401, "invalid_api_key");
            }
        }
        // One key signs in the name of another, of the same kind and of another kind.
        for forger in [&signers[1], &signers[2], &Signer::ec("e"), &Signer::ed("d")] {
            for id in ["r", "e", "d"] {
                let forged = forger.sign_as(id, &claims("eve"));
                let own = forger.known == signers[1].known && id == "e"
                    || forger.known == signers[2].known && id == "d";
                if !own {
                    ask(&gateway, "m", &forged).assert_refused(401, "invalid_api_key");
                }
            }
        }
        assert_eq!(upstream.requests().len(), passed, "somebody passed");
    }
    assert_eq!(web.calls(), 1);
}

#[test]
fn claims_are_scopes() {
    let engine = engine();
    let signer = Signer::ed("d");
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let scopes =
        ", claims = { subject = \"email\", services = \"tollgate.services\", models = \"models\" }";
    let toml = believer(&keys_at(&web), scopes)
        + &service("a", "a", &engine.url())
        + &service("b", "b", &engine.url())
        + &format!(
            "[[service]]\nname = \"c\"\nmodels = [\"c-large\", \"c-small\"]\ntargets = [\"{}\"]\n",
            engine.url()
        );
    let gateway = Gateway::start(&toml);
    let token = |services: Value, models: Value| {
        let mut claims = claims("unused");
        claims["email"] = json!("ann@example.com");
        claims["tollgate"] = json!({"services": services});
        claims["models"] = models;
        signer.sign(&claims)
    };
    let all = ["a", "b", "c-large", "c-small"];
    for (services, allowed, opens) in [
        (json!(["a"]), json!(["*"]), vec!["a"]),
        (json!("a c"), json!("a c-s*"), vec!["a", "c-small"]),
        (json!(["a", "b", "c"]), json!(["c-large"]), vec!["c-large"]),
        (json!(["b"]), json!(["a"]), vec![]),
        (json!([]), json!(["*"]), vec![]),
        // What cannot be read opens nothing.
        (json!({"a": true}), json!(["*"]), vec![]),
        (json!(["a"]), json!(true), vec![]),
        (Value::Null, json!(["*"]), vec![]),
    ] {
        let token = token(services, allowed);
        assert_eq!(models(&gateway, &token), opens);
        for model in all {
            let reply = ask(&gateway, model, &token);
            let shown = gateway
                .client()
                .get(&format!("/v1/models/{model}"), &bearer(&token));
            match opens.contains(&model) {
                true => {
                    reply.assert_ok();
                    shown.assert_ok();
                }
                false => {
                    reply.assert_refused(403, "permission_denied");
                    shown.assert_refused(404, "model_not_found");
                }
            }
        }
    }
    // Without the claim that says who it is, it is nobody's.
    ask(&gateway, "a", &signer.sign(&claims("ann"))).assert_refused(401, "invalid_api_key");
    gateway.assert_gauges_zero();
}

/// The access log, once it has so many lines.
fn lines(path: &Path, count: usize) -> String {
    until("the access log", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
    })
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn what_is_no_valid_token_is_refused() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (signer, stranger) = (Signer::ed("d"), Signer::ed("stranger"));
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let toml = format!("[log]\naccess = \"{}\"\n", log.display())
        + &believer(&keys_at(&web), ", leeway = \"5s\"")
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let good = signer.sign(&claims("ann"));
    let pieces: Vec<&str> = good.split('.').collect();
    let mut wrong: Vec<String> = [
        with("iss", json!("https://id.example/")),
        with("iss", json!([ISSUER])),
        with("iss", Value::Null),
        with("aud", json!("somebody")),
        with("aud", json!(["somebody", 7])),
        with("aud", json!({"tollgate": true})),
        with("aud", Value::Null),
        with("exp", json!(unix_seconds() - 6)),
        with("exp", json!("2100-01-01")),
        with("exp", json!(-1)),
        with("exp", Value::Null),
        with("nbf", json!(unix_seconds() + 60)),
        with("nbf", json!("now")),
        with("sub", Value::Null),
        with("sub", json!("")),
        with("sub", json!(7)),
    ]
    .iter()
    .map(|claims| signer.sign(claims))
    .collect();
    wrong.push(stranger.sign(&claims("ann")));
    wrong.push(stranger.sign_as("d", &claims("ann")));
    for algorithm in ["none", "None", "nOnE", "", "HS256", "ES256"] {
        let head = part(&json!({"alg": algorithm, "typ": "JWT", "kid": "d"}));
        for end in ["", pieces[2]] {
            wrong.push(format!("{head}.{}.{end}", pieces[1]));
        }
    }
    // A signature of other claims, none, two, and an extension that must be understood.
    wrong.push(format!(
        "{}.{}.{}",
        pieces[0],
        part(&claims("root")),
        pieces[2]
    ));
    wrong.push(format!("{}.{}", pieces[0], pieces[1]));
    wrong.push(format!("{}.{}.", pieces[0], pieces[1]));
    wrong.push(format!("{good}.{}", pieces[2]));
    let critical = part(&json!({"alg": "EdDSA", "kid": "d", "crit": ["exp"]}));
    wrong.push(format!("{critical}.{}.{}", pieces[1], pieces[2]));
    for garbage in [
        "x",
        "..",
        "a.b.c",
        "e30.e30.e30",
        "%",
        "\u{e9}",
        "two words",
    ] {
        wrong.push(garbage.to_owned());
    }
    // 20 KiB: rightly signed, and nonsense.
    wrong.push(signer.sign(&with("sub", json!("x".repeat(15 << 10)))));
    wrong.push("x".repeat(20 << 10));
    assert!(wrong[wrong.len() - 2].len() > 20 << 10);
    for token in &wrong {
        let reply = ask(&gateway, "m", token);
        let shown = token.get(..60).unwrap_or(token);
        assert_eq!(reply.status, 401, "{shown}: {}", reply.text());
        assert_eq!(reply.error_code(), "invalid_api_key", "{shown}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{shown}");
    }
    assert_eq!(engine.state().started, 0, "somebody passed");
    // A clock that differs by less than the leeway does no harm.
    ask(
        &gateway,
        "m",
        &signer.sign(&with("nbf", json!(unix_seconds() + 2))),
    )
    .assert_ok();
    ask(
        &gateway,
        "m",
        &signer.sign(&with("aud", json!(["x", "tollgate"]))),
    )
    .assert_ok();
    ask(&gateway, "m", &good).assert_ok();
    let log = lines(&log, wrong.len() + 3);
    assert!(
        !log.contains(pieces[2]) && !log.contains(pieces[1]),
        "{log}"
    );
}

/// Who asked stands in the log and in the books, and no name breaks either.
#[test]
fn the_subject_is_who_asked() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let signer = Signer::ec("e");
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let toml = format!("[log]\naccess = \"{}\"\n", log.display())
        + &believer(&keys_at(&web), "")
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let names = [
        "ann",
        "bob@example.com",
        "\"},{\"status\":1,\"key\":\"root",
        "two\nlines\u{1b}[0m\\",
    ];
    for (n, name) in names.iter().enumerate() {
        let token = signer.sign(&claims(name));
        for _ in 0..=n {
            ask(&gateway, "m", &token).assert_ok();
        }
    }
    // An exchange is in the books a moment after its answer.
    until("usage of everybody", || {
        let used = gateway.admin("/v1/usage?by=key").json();
        let items = used["items"].as_array().unwrap();
        let counted = |(n, name): (usize, &&str)| {
            let item = items.iter().find(|item| item["key"] == **name);
            item.is_some_and(|item| item["requests"] == n + 1)
        };
        let all = names.iter().enumerate().all(counted);
        (all && items.len() == names.len()).then_some(())
    });
    let text = lines(&log, 10);
    let mut keys: Vec<String> = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        keys.push(line["key"].as_str().unwrap().to_owned());
    }
    let wanted = names.iter().enumerate();
    let mut wanted: Vec<String> = wanted
        .flat_map(|(n, name)| vec![(*name).to_owned(); n + 1])
        .collect();
    keys.sort();
    wanted.sort();
    assert_eq!(keys, wanted);
}

#[test]
fn a_token_ends_in_time() {
    let engine = engine();
    let signer = Signer::ed("d");
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let toml = believer(&keys_at(&web), ", leeway = \"0s\"") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let end = unix_seconds() + 2;
    let token = signer.sign(&with("exp", json!(end)));
    ask(&gateway, "m", &token).assert_ok();
    let refused = until("the token to end", || {
        let reply = ask(&gateway, "m", &token);
        (reply.status != 200).then_some(reply)
    });
    assert!(unix_seconds() >= end, "it ended before its time");
    refused.assert_refused(401, "invalid_api_key");
}

/// An issuer gets another key: its tokens pass without anybody's doing, and those of the old key no longer.
#[test]
fn a_new_key_of_the_issuer_is_picked_up() {
    let engine = engine();
    let (old, new) = (Signer::ed("old"), Signer::ec("new"));
    let set = key_set(&[&old]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let toml = believer(&keys_at(&web), "") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let (before, after) = (old.sign(&claims("ann")), new.sign(&claims("ann")));
    ask(&gateway, "m", &before).assert_ok();
    let set = key_set(&[&new]);
    web.play(move |_| (200, set.clone()));
    // Not every unknown key asks the issuer: ten seconds are between two fetches.
    let start = Instant::now();
    let mut refused = 0;
    loop {
        let reply = ask(&gateway, "m", &after);
        if reply.status == 200 {
            break;
        }
        reply.assert_refused(401, "invalid_api_key");
        refused += 1;
        assert!(start.elapsed() < Duration::from_secs(25), "not picked up");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(refused > 10, "asked at once");
    assert_eq!(web.calls(), 2);
    ask(&gateway, "m", &before).assert_refused(401, "invalid_api_key");
}
