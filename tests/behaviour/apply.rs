//! Documents of every form, planned and applied: all of them or none.

use serde_json::{Value, json};

use crate::harness::{Api, Gateway, Reply, Upstream, bearer, service};

fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&service("filed", "filed", &upstream.url()))
}

fn send(api: &Api, path: &str, kind: &str, body: &str) -> Reply {
    api.send(
        "POST",
        path,
        &format!("content-type: {kind}\r\n"),
        body.as_bytes(),
    )
}

/// Kind, name and action of each change.
#[track_caller]
fn changes(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let body = reply.json();
    let changes = body["changes"].as_array().unwrap().iter();
    let mut told: Vec<String> = changes
        .map(|c| {
            format!(
                "{} {} {}",
                text(&c["kind"]),
                text(&c["name"]),
                text(&c["action"])
            )
        })
        .collect();
    told.sort();
    told
}

#[track_caller]
fn details(reply: &Reply) -> Vec<String> {
    let error = reply.json()["error"].clone();
    assert_eq!(
        (reply.status, &error["code"]),
        (422, &json!("invalid")),
        "{}",
        reply.text()
    );
    let details = error["details"].as_array().unwrap().iter();
    details
        .map(|d| d["path"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_plan_tells_and_changes_nothing_and_apply_does_it() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let url = upstream.url();
    let documents = json!([
        {"kind": "service", "name": "s", "models": ["s"], "upstream": "pool", "weight": 5},
        {"kind": "upstream", "name": "pool", "targets": [url]},
        {"kind": "service", "name": "filed", "models": ["filed"], "targets": [url]},
    ]);
    let before = api.get("/v1/services").json();
    let planned = api.ask("POST", "/v1/plan", &documents);
    let expected = [
        "service filed unchanged",
        "service s create",
        "upstream pool create",
    ];
    assert_eq!(changes(&planned), expected);
    assert_eq!(planned.json()["revision"], before["revision"]);
    assert_eq!(
        api.get("/v1/services").json(),
        before,
        "nothing has changed"
    );

    let applied = api.ask("POST", "/v1/apply", &documents);
    assert_eq!(changes(&applied), expected);
    let revision = before["revision"].as_u64().unwrap() + 1;
    assert_eq!(
        applied.json()["revision"],
        json!(revision),
        "one revision for all"
    );
    gateway.client().chat("s", "").assert_ok();
    let again = api.ask("POST", "/v1/apply", &documents);
    assert_eq!(
        changes(&again),
        [
            "service filed unchanged",
            "service s unchanged",
            "upstream pool unchanged"
        ]
    );
    assert_eq!(again.json()["revision"], json!(revision));

    let one = json!({"kind": "service", "name": "s", "models": ["s", "t"], "upstream": "pool", "weight": 6, "timeouts": {"connect": "1s"}});
    let planned = api.ask("POST", "/v1/plan", &one);
    assert_eq!(changes(&planned), ["service s update"]);
    let fields = planned.json()["changes"][0]["fields"].clone();
    let mut fields: Vec<Value> = fields.as_array().unwrap().clone();
    fields.sort_by_key(|field| field["path"].to_string());
    assert_eq!(
        fields,
        [
            json!({"path": "models", "from": ["s"], "to": ["s", "t"]}),
            json!({"path": "timeouts.connect", "from": "2s", "to": "1s"}),
            json!({"path": "weight", "from": 5, "to": 6}),
        ]
    );
}

#[test]
fn documents_of_every_form_are_read() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let url = upstream.url();
    let yaml = format!(
        "# two\n---\nkind: upstream\nname: y\ntargets: [\"{url}\"]\n---\ntype: service\nname: z\nmodels: [z]\nupstream: y\n---\n"
    );
    assert_eq!(
        changes(&send(&api, "/v1/apply", "application/yaml", &yaml)),
        ["service z create", "upstream y create"]
    );
    gateway.client().chat("z", "").assert_ok();
    let toml = format!(
        "[server]\nthreads = 3\n[[rule]]\ngateway = \"main\"\npath = \"/r\"\nservices = [\"t\"]\n{}",
        service("t", "t", &url)
    );
    let whole = send(&api, "/v1/apply", "application/toml; charset=utf-8", &toml);
    assert_eq!(changes(&whole), ["rule rule-1 create", "service t create"]);
    assert_eq!(
        whole.json()["warnings"][0]["path"],
        "server",
        "{}",
        whole.text()
    );
    let items = json!({"items": [{"kind": "key", "name": "k", "gateway": "main"}]});
    assert_eq!(
        changes(&api.ask("POST", "/v1/apply", &items)),
        ["key k create"]
    );
    let target =
        json!({"kind": "target", "upstream": "y", "id": "two", "url": "http://127.0.0.1:9"});
    assert_eq!(
        changes(&api.ask("POST", "/v1/apply", &target)),
        ["target y/two create"]
    );
    // What a list answers can be sent back.
    for kind in ["gateways", "services", "upstreams", "rules", "keys"] {
        let list = api.get(&format!("/v1/{kind}")).json();
        let same = changes(&api.ask("POST", "/v1/apply", &list));
        assert!(
            same.iter().all(|change| change.ends_with("unchanged")),
            "{same:?}"
        );
    }
}

#[test]
fn all_mistakes_at_once_and_nothing_is_done() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let url = upstream.url();
    let good = json!({"kind": "service", "name": "good", "models": ["good"], "targets": [url]});
    let documents = json!([
        good,
        {"kind": "service", "name": "s", "models": ["s"], "upstream": "u", "weight": -1},
        {"kind": "upstream", "name": "u", "targets": ["nonsense"]},
        {"kind": "service", "name": "good", "models": ["x"], "targets": [url]},
        {"kind": "rule", "name": "r", "gateway": "nowhere", "path": "/r"},
        {"kind": "key", "gateway": "main"},
    ]);
    for path in ["/v1/plan", "/v1/apply"] {
        let mut found = details(&api.ask("POST", path, &documents));
        found.sort();
        let expected = [
            "documents[1].weight",
            "documents[2].targets[0]",
            "documents[3].name",
            "documents[4].gateway",
            "documents[5].name",
        ];
        assert_eq!(
            found, expected,
            "what is wrong in itself hides nothing else"
        );
    }
    assert_eq!(api.get("/v1/services/good").status, 404);
    for (body, place) in [
        (
            json!([{"kind": "services", "name": "a"}]),
            "documents[0].kind",
        ),
        (json!([good, {"name": "a"}]), "documents[1]"),
        (json!([1]), "documents[0]"),
        (
            json!({"service": [{"name": "a", "targets": [url], "modls": []}]}),
            "service[0].modls",
        ),
        (json!({"service": {"name": "a"}}), "service"),
        (json!({"service": [null]}), "service[0]"),
        (json!({"key": ["a"]}), "key[0]"),
        (
            json!([{"kind": "target", "upstream": "u", "weight": 2}]),
            "documents[0]",
        ),
        (json!({"servis": [], "service": []}), "servis"),
        (json!({}), ""),
        (json!([]), ""),
    ] {
        assert_eq!(
            details(&api.ask("POST", "/v1/apply", &body))[0],
            place,
            "{body}"
        );
    }
    let owned = json!({"kind": "service", "name": "filed", "models": ["filed"], "targets": [url], "weight": 1});
    let reply = api.ask("POST", "/v1/apply", &json!([good, owned]));
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (409, &json!("owned_by_file"))
    );
    assert_eq!(api.get("/v1/services/good").status, 404);

    for (kind, body) in [
        ("application/yaml", "a: [1"),
        ("application/yaml", "a: 1\n---\n- b\nc: 1"),
        ("application/toml", "a = "),
        ("application/json", "{"),
    ] {
        let reply = send(&api, "/v1/apply", kind, body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (400, &json!("malformed")),
            "{}",
            reply.text()
        );
    }
    let second = send(
        &api,
        "/v1/apply",
        "application/yaml",
        "a: 1\n---\nb: 1\nc: [\n",
    );
    assert!(
        second.text().contains("4:") || second.text().contains("5:"),
        "{}",
        second.text()
    );
    assert_eq!(send(&api, "/v1/apply", "text/csv", "a,b").status, 415);
}

/// Who planned at one revision applies at no other.
#[test]
fn a_plan_that_is_stale_is_not_applied() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let document = |name: &str| json!({"kind": "service", "name": name, "models": [name], "targets": [upstream.url()]});
    let planned = api.ask("POST", "/v1/plan", &document("a"));
    let tag = planned.header("etag").unwrap().to_owned();
    let apply = |name: &str| {
        let fields = format!("if-match: {tag}\r\n");
        api.send(
            "POST",
            "/v1/apply",
            &fields,
            document(name).to_string().as_bytes(),
        )
    };
    assert_eq!(apply("a").status, 200);
    let stale = apply("b");
    assert_eq!(
        (stale.status, &stale.json()["error"]["code"]),
        (412, &json!("stale"))
    );
    assert_eq!(api.get("/v1/services/b").status, 404);
}

#[test]
fn a_key_that_is_applied_shows_its_secret_once() {
    let upstream = Upstream::obliging();
    let toml = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n".to_owned()
        + &service("a", "a", &upstream.url());
    let gateway = Gateway::start(&toml);
    let api = gateway.api();
    let key = json!({"kind": "key", "name": "k", "gateway": "main"});
    assert!(
        api.ask("POST", "/v1/plan", &key).json()["changes"][0]
            .get("secret")
            .is_none()
    );
    let made = api.ask("POST", "/v1/apply", &key).json();
    let secret = made["changes"][0]["secret"].as_str().unwrap();
    assert_eq!(gateway.client().chat("a", &bearer(secret)).status, 200);
    let again = api.ask("POST", "/v1/apply", &key);
    assert_eq!(changes(&again), ["key k unchanged"]);
    assert!(!again.text().contains("secret\""), "{}", again.text());
    assert_eq!(gateway.client().chat("a", &bearer(secret)).status, 200);
}

#[test]
fn other_systems_documents_are_converted() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let routes = json!([{"base_url": upstream.url(), "prefix": "llama*", "weight": 1}]);
    let planned = api.ask(
        "POST",
        "/v1/plan?gateway=main&flag=route-policy%3Dprefix",
        &routes,
    );
    assert!(
        changes(&planned)
            .iter()
            .any(|change| change.ends_with("create")),
        "{}",
        planned.text()
    );
    let notes = planned.json()["notes"].clone();
    let note = |note: &Value| {
        ["document", "path", "verdict", "message"]
            .iter()
            .all(|f| note[f].is_string())
    };
    assert!(
        notes
            .as_array()
            .is_some_and(|notes| !notes.is_empty() && notes.iter().all(note)),
        "{notes}"
    );
    let applied = api.ask(
        "POST",
        "/v1/apply?gateway=main&flag=route-policy%3Dprefix",
        &routes,
    );
    assert_eq!(applied.status, 200, "{}", applied.text());
    gateway.client().chat("llama-3", "").assert_ok();
    // What cannot be honoured is refused with its place.
    let task = json!({"type": "task", "commands": ["true"]});
    details(&api.ask("POST", "/v1/apply", &task));
    let reply = api.ask("POST", "/v1/apply?colour=red", &routes);
    assert_eq!(reply.status, 400);
}
