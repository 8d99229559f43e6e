//! Tokens that an identity service knows: how it is asked, how seldom, and what its answers open.

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Mood, Reply, Request, Upstream, Web, bearer, engine, service, until,
};

/// A gateway that asks an identity service.
fn asker(web: &Web, more: &str) -> String {
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = {{ type = \"http\", url = \"{}/me?of=1\", timeout = \"20s\"{more} }}\n",
        web.url()
    )
}

fn ask(gateway: &Gateway, model: &str, token: &str) -> Reply {
    gateway.client().chat(model, &bearer(token))
}

/// The token a service was asked for with `GET`.
fn token_of(request: &Request) -> String {
    let value = request.header("authorization").unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

/// Lets in whoever's token begins with `good`, under the token's name.
fn by_name(request: &Request) -> (u16, String) {
    let token = token_of(request);
    match token.starts_with("good") {
        true => (200, json!({"sub": token}).to_string()),
        false => (401, json!({"error": "who is that?"}).to_string()),
    }
}

fn times(web: &Web, token: &str) -> usize {
    let asked = web.asked();
    asked.iter().filter(|r| token_of(r) == token).count()
}

#[test]
fn the_service_is_asked_once_and_its_answer_holds() {
    let upstream = Upstream::obliging();
    let web = Web::start(Mood::Well, by_name);
    let gateway = Gateway::start(&(asker(&web, "") + &service("m", "m", &upstream.url())));
    for _ in 0..10 {
        ask(&gateway, "m", "good-1").assert_ok();
        gateway
            .client()
            .chat("m", "x-api-key: good-1\r\n")
            .assert_ok();
        ask(&gateway, "m", "bad-1").assert_refused(401, "invalid_api_key");
    }
    gateway
        .client()
        .chat("m", "")
        .assert_refused(401, "invalid_api_key");
    let asked = web.asked();
    assert_eq!(asked.len(), 2, "a yes and a no are remembered: {asked:?}");
    let first = &asked[0];
    assert_eq!((first.method(), first.path()), ("GET", "/me?of=1"));
    assert_eq!(first.body, b"");
    assert_eq!(first.header("accept").as_deref(), Some("application/json"));
    // Of the client's request the service sees the token alone.
    assert_eq!(first.header("content-type"), None);
    assert_eq!(upstream.requests().len(), 20);
    for bytes in upstream.received() {
        let sent = String::from_utf8_lossy(&bytes).to_lowercase();
        assert!(
            !sent.contains("good-1") && !sent.contains("bearer"),
            "{sent}"
        );
    }
    gateway.assert_gauges_zero();
}

#[test]
fn a_service_may_be_asked_by_post_with_a_credential_of_the_gateways() {
    let engine = engine();
    let web = Web::start(Mood::Well, |request| {
        let active = request.body == b"token=good%2B1%2F%3D";
        (
            200,
            json!({"active": active, "username": "ann"}).to_string(),
        )
    });
    let more =
        ", method = \"POST\", headers = { Authorization = \"Basic Zzpz\", X-Gateway = \"main\" }";
    let gateway = Gateway::start(&(asker(&web, more) + &service("m", "m", &engine.url())));
    for _ in 0..3 {
        ask(&gateway, "m", "good+1/=").assert_ok();
        ask(&gateway, "m", "good+1/%3D").assert_refused(401, "invalid_api_key");
    }
    let asked = web.asked();
    assert_eq!(asked.len(), 2);
    for request in asked {
        assert_eq!(request.method(), "POST");
        let header = |name: &str| request.header(name).unwrap_or_default();
        assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
        assert_eq!(header("authorization"), "Basic Zzpz");
        assert_eq!(header("x-gateway"), "main");
    }
    let items = until("the books", || {
        let items = gateway.admin("/v1/usage?by=key").json()["items"].clone();
        (items[0]["requests"] == 3).then_some(items)
    });
    let names: Vec<&Value> = items
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["key"])
        .collect();
    assert_eq!(names, ["ann"]);
}

#[test]
fn its_answers_are_scopes() {
    let engine = engine();
    let web = Web::start(Mood::Well, |request| {
        let said = match token_of(request).as_str() {
            "all" => json!({"sub": "all"}),
            "a" => json!({"sub": "a", "services": ["a"]}),
            "b" => json!({"sub": "b", "models": "b*"}),
            "none" => json!({"sub": "none", "services": []}),
            "odd" => json!({"sub": "odd", "services": {"a": true}}),
            "ended" => json!({"sub": "ended", "exp": 1}),
            "taken-back" => json!({"sub": "x", "active": false}),
            // Neither yes nor no can be read from these.
            "broken" => return (200, "{\"active\":".into()),
            "strange" => return (418, "{}".into()),
            _ => return (403, "{}".into()),
        };
        (200, said.to_string())
    });
    let toml =
        asker(&web, "") + &service("a", "a", &engine.url()) + &service("b", "b", &engine.url());
    let gateway = Gateway::start(&toml);
    for (token, opens) in [
        ("all", &["a", "b"][..]),
        ("a", &["a"]),
        ("b", &["b"]),
        ("none", &[]),
        ("odd", &[]),
    ] {
        for model in ["a", "b"] {
            let reply = ask(&gateway, model, token);
            match opens.contains(&model) {
                true => reply.assert_ok(),
                false => reply.assert_refused(403, "permission_denied"),
            }
        }
        let list = gateway.client().get("/v1/models", &bearer(token)).json();
        let ids = list["data"].as_array().unwrap().iter();
        let ids: Vec<&str> = ids.map(|model| model["id"].as_str().unwrap()).collect();
        assert_eq!(ids, opens, "{token}");
    }
    for token in ["ended", "taken-back", "unknown"] {
        ask(&gateway, "a", token).assert_refused(401, "invalid_api_key");
    }
    for token in ["broken", "strange"] {
        ask(&gateway, "a", token).assert_refused(503, "identity_unavailable");
        // That is no reason to think it is down.
        ask(&gateway, "a", &format!("{token}-other")).assert_refused(401, "invalid_api_key");
    }
}

#[test]
fn a_hundred_with_one_new_token_ask_once() {
    let engine = engine();
    let web = Web::start(Mood::Silent, by_name);
    let gateway = Gateway::start(&(asker(&web, "") + &service("m", "m", &engine.url())));
    let mut clients: Vec<_> = (0..100).map(|_| gateway.client()).collect();
    for client in &mut clients {
        let body = crate::harness::chat("m");
        client.send(crate::harness::post(
            crate::harness::CHAT,
            &bearer("good-1"),
            body,
        ));
    }
    until("the service to be asked", || {
        (web.calls() > 0).then_some(())
    });
    // Whoever has another token asks for itself and waits for nobody: those before it have been read by now.
    let mut other = gateway.client();
    other.send(crate::harness::get("/v1/models", &bearer("good-2")));
    until("the other to be asked for", || {
        (times(&web, "good-2") == 1).then_some(())
    });
    web.set(Mood::Well);
    other.reply().assert_ok();
    for client in &mut clients {
        client.reply().assert_ok();
    }
    assert_eq!(times(&web, "good-1"), 1);
    assert_eq!(engine.state().started, 100);
    gateway.assert_gauges_zero();
}

#[test]
fn after_its_time_a_token_is_asked_for_again() {
    let engine = engine();
    let web = Web::start(Mood::Well, by_name);
    let gateway = Gateway::start(
        &(asker(&web, ", cache = \"200ms\", stale = \"0s\"") + &service("m", "m", &engine.url())),
    );
    ask(&gateway, "m", "good-1").assert_ok();
    ask(&gateway, "m", "bad-1").assert_refused(401, "invalid_api_key");
    until("both to be asked for again", || {
        ask(&gateway, "m", "good-1").assert_ok();
        ask(&gateway, "m", "bad-1").assert_refused(401, "invalid_api_key");
        (times(&web, "good-1") >= 3 && times(&web, "bad-1") >= 3).then_some(())
    });
    // What is taken back ends, and what is given begins.
    web.play(|request| match token_of(request).as_str() {
        "bad-1" => (200, "{}".into()),
        _ => (401, "{}".into()),
    });
    until("the service's change of mind", || {
        let (good, bad) = (ask(&gateway, "m", "good-1"), ask(&gateway, "m", "bad-1"));
        (good.status == 401 && bad.status == 200).then_some(())
    });
}

#[test]
fn a_published_service_needs_no_token() {
    let upstream = Upstream::obliging();
    let web = Web::start(Mood::Well, by_name);
    let toml = asker(&web, "")
        + &service("open", "open", &upstream.url())
        + "auth = \"none\"\n"
        + &service("closed", "closed", &upstream.url());
    let gateway = Gateway::start(&toml);
    gateway.client().chat("open", "").assert_ok();
    gateway
        .client()
        .chat("closed", "")
        .assert_refused(401, "invalid_api_key");
    assert_eq!(web.calls(), 0, "nobody had a token");
    ask(&gateway, "closed", "good-1").assert_ok();
    ask(&gateway, "open", "good-1").assert_ok();
    assert_eq!(upstream.last().header("authorization"), None);
    ask(&gateway, "closed", "bad-1").assert_refused(401, "invalid_api_key");
    ask(&gateway, "open", "bad-1").assert_ok();
    assert_eq!(web.calls(), 2);
}
