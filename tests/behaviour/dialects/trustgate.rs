//! TrustGate's API: the life of a tenant, and what comes of it natively.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{FILE, all_up, ask, done, id, named, shares, start};
use crate::harness::{Api, Process, Reply, Upstream, learn, until};

pub(super) const ALL: &str = "/api/v1/gateways";

/// A tenant as its own scripts make it: an upstream, a service, a rule and a key.
pub(super) struct Tenant {
    pub(super) api: Api,
    pub(super) at: String,
    pub(super) upstream: String,
    pub(super) service: String,
    pub(super) rule: String,
    pub(super) key: String,
    pub(super) secret: String,
}

pub(super) fn target(upstream: &Upstream, weight: u32) -> Value {
    json!({"host": "127.0.0.1", "port": upstream.address().port(), "protocol": "http", "weight": weight})
}

impl Tenant {
    #[track_caller]
    pub(super) fn of(api: &Api, name: &str, subdomain: &str, targets: Value) -> Tenant {
        let gateway = json!({"name": name, "subdomain": subdomain});
        let gateway = done(&api.ask("POST", ALL, &gateway), 201);
        let at = format!("{ALL}/{}", id(&gateway));
        let make = |list: &str, body: Value| {
            let made = done(&api.ask("POST", &format!("{at}/{list}"), &body), 201);
            for (field, value) in body.as_object().unwrap() {
                assert_eq!(&made[field], value, "{made}");
            }
            made
        };
        let upstream = id(&make(
            "upstreams",
            json!({"name": "pool", "algorithm": "weighted-round-robin", "targets": targets}),
        ));
        let service = id(&make(
            "services",
            json!({"name": "chat", "type": "upstream", "upstream_id": upstream}),
        ));
        let rule = id(&make(
            "rules",
            json!({"name": "chat", "path": "/v1/*", "methods": ["POST"], "service_id": service}),
        ));
        let key = make(
            "keys",
            json!({"name": "team-a", "expires_at": "2099-01-01T00:00:00Z"}),
        );
        let secret = key["key"].as_str().unwrap().to_owned();
        learn(&secret);
        Tenant {
            api: api.clone(),
            at,
            upstream,
            service,
            rule,
            key: id(&key),
            secret,
        }
    }

    pub(super) fn one(&self, list: &str, id: &str) -> String {
        format!("{}/{list}/{id}", self.at)
    }

    #[track_caller]
    pub(super) fn get(&self, list: &str, id: &str) -> Value {
        done(&self.api.get(&self.one(list, id)), 200)
    }

    pub(super) fn ask(&self, address: SocketAddr, path: &str) -> Reply {
        let key = format!("x-tg-api-key: {}\r\n", self.secret);
        ask(address, "edge.localhost", path, &key)
    }
}

/// Made, asked, killed, asked again, changed and taken apart.
#[test]
fn the_life_of_a_tenant() {
    let (heavy, light) = (named("heavy"), named("light"));
    let mut process = Process::start(&format!(
        "{FILE}[server]\nstate = \"./tollgate.db\"\ngrace = \"1s\"\n"
    ));
    let api = process.api();
    let targets = json!([target(&heavy, 3), target(&light, 1)]);
    let tenant = Tenant::of(&api, "Edge", "edge", targets);
    all_up(&api, 2);
    let address = process.address;
    let chat = || tenant.ask(address, "/v1/chat/completions");
    assert_eq!(shares(8, &["heavy", "light"], chat), [6, 2]);
    assert_eq!(heavy.last().path(), "/v1/chat/completions");
    let other = tenant.ask(address, "/v2/chat/completions");
    assert_eq!(other.status, 404, "{}", other.text());
    let keyless = ask(address, "edge.localhost", "/v1/models", "");
    assert_eq!(keyless.status, 401, "{}", keyless.text());

    // What was answered is there after a death, and says the same.
    let shown = tenant.get("upstreams", &tenant.upstream);
    process.signal("KILL");
    process.end();
    process.restart();
    all_up(&process.api(), 2);
    assert_eq!(tenant.get("upstreams", &tenant.upstream), shown);
    assert_eq!(shares(4, &["heavy", "light"], chat), [3, 1]);

    // A change is in force when it is answered.
    let all = json!({"path": "/v2/*"});
    done(
        &api.ask("PUT", &tenant.one("rules", &tenant.rule), &all),
        204,
    );
    assert_eq!(chat().status, 404);
    assert_eq!(tenant.ask(address, "/v2/x").status, 200);
    let rule = tenant.get("rules", &tenant.rule);
    assert_eq!(
        (&rule["path"], &rule["name"]),
        (&json!("/v2/*"), &json!("chat"))
    );

    let gone = |list: &str, id: &str| {
        let one = tenant.one(list, id);
        done(&api.ask("DELETE", &one, &Value::Null), 204);
        done(&api.get(&one), 404);
        done(&api.ask("DELETE", &one, &Value::Null), 404);
    };
    gone("keys", &tenant.key);
    assert_eq!(tenant.ask(address, "/v2/x").status, 401);
    gone("rules", &tenant.rule);
    gone("services", &tenant.service);
    gone("upstreams", &tenant.upstream);
    done(&api.ask("DELETE", &tenant.at, &Value::Null), 204);
    done(&api.get(&tenant.at), 404);
    for list in ["upstreams", "services", "rules", "keys"] {
        let left = api.get(&format!("/v1/{list}")).json();
        assert_eq!(left["items"], json!([]), "{list}");
    }
}

/// Natively they are resources like any others, with the gateway's name before their own.
#[test]
fn it_is_another_door_to_the_same_resources() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let native = |path: &str| done(&api.get(path), 200);
    let service = native("/v1/services/edge.chat");
    assert_eq!(service["gateways"], json!(["edge"]));
    assert_eq!(service["upstream"], "edge.pool");
    assert_eq!(service["labels"]["trustgate-id"], tenant.service.as_str());
    assert_eq!(native("/v1/rules/edge.chat")["gateway"], "edge");
    assert!(!native("/v1/keys").to_string().contains(&tenant.secret));

    // What is changed natively stays, unless a write is about that field.
    let patch = json!({"timeouts": {"total": "9s"}});
    done(&api.ask("PATCH", "/v1/services/edge.chat", &patch), 200);
    let put = json!({"name": "chat", "type": "upstream", "upstream_id": tenant.upstream, "description": "Talks."});
    let one = tenant.one("services", &tenant.service);
    let body = done(&api.ask("PUT", &one, &put), 200);
    assert_eq!(body["description"], "Talks.");
    let service = native("/v1/services/edge.chat");
    assert_eq!(service["description"], "Talks.");
    assert_eq!(service["timeouts"]["total"], "9s");

    // What was revoked natively does not come back with the next write.
    let asked = |host: &str| {
        let key = format!("x-tg-api-key: {}\r\n", tenant.secret);
        ask(gateway.address(), host, "/v1/x", &key).status
    };
    assert_eq!(asked("edge.localhost"), 200);
    // The first gateway takes every host that is nobody else's.
    assert_eq!(asked("any.example"), 200);
    assert_eq!(asked("other.example"), 401);
    api.revoke("edge.team-a");
    done(&api.ask("PUT", &tenant.at, &json!({"name": "Edge"})), 204);
    let more = json!({"name": "team-b"});
    done(&api.ask("POST", &format!("{}/keys", tenant.at), &more), 201);
    assert_eq!(asked("edge.localhost"), 401);
}

/// Two tenants do not see each other, though they use the same names.
#[test]
fn tenants_are_apart() {
    let (one, two) = (named("one"), named("two"));
    let gateway = start();
    let api = gateway.api();
    let edge = Tenant::of(&api, "Edge", "edge", json!([target(&one, 1)]));
    let rim = Tenant::of(&api, "Rim", "rim", json!([target(&two, 1)]));
    let with = |host: &str, tenant: &Tenant| {
        let key = format!("x-api-key: {}\r\n", tenant.secret);
        let reply = ask(gateway.address(), host, "/v1/x", &key);
        (reply.status, reply.text())
    };
    assert_eq!(with("edge.localhost", &edge), (200, "one".into()));
    assert_eq!(with("rim.localhost", &rim), (200, "two".into()));
    assert_eq!(with("rim.localhost", &edge).0, 401);
    done(&api.get(&edge.one("rules", &rim.rule)), 404);
    let list = done(&api.get(&format!("{}/rules", edge.at)), 200);
    assert_eq!(
        (&list["count"], list["rules"].as_array().unwrap().len()),
        (&json!(1), 1)
    );

    // A gateway goes with all that is below it, and nobody else's.
    done(&api.ask("DELETE", &edge.at, &Value::Null), 204);
    assert_eq!(with("rim.localhost", &rim), (200, "two".into()));
    let left = api.get("/v1/services").json();
    let left: Vec<&str> = { left["items"].as_array().unwrap().iter() }
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(left, ["rim.chat"]);
}

/// With all that is below it, whose names begin with its own; keys stay what they are.
#[test]
fn a_gateway_can_get_another_name() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let asked = || tenant.ask(gateway.address(), "/v1/x").status;
    done(&api.ask("PUT", &tenant.at, &json!({"name": "Rim"})), 204);
    assert_eq!(asked(), 200);
    done(&api.get("/v1/services/rim.chat"), 200);
    done(&api.get("/v1/services/edge.chat"), 404);
    // One of the file has that name.
    done(&api.ask("PUT", &tenant.at, &json!({"name": "other"})), 400);
    assert_eq!(done(&api.get(&tenant.at), 200)["name"], "Rim");
    assert_eq!(asked(), 200);
    done(
        &api.ask("PUT", &tenant.at, &json!({"status": "inactive"})),
        204,
    );
    assert_eq!(asked(), 503);
}

#[test]
fn lists_come_in_pages() {
    let gateway = start();
    let api = gateway.api();
    for number in 0..12 {
        let body = json!({"name": format!("g{number}"), "subdomain": format!("g{number}")});
        done(&api.ask("POST", ALL, &body), 201);
    }
    let names = |query: &str| {
        let page = done(&api.get(&format!("{ALL}{query}")), 200);
        assert_eq!(page["count"], 12, "{page}");
        let names = page["gateways"].as_array().unwrap().iter();
        names
            .map(|gateway| gateway["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("").len(), 10);
    assert_eq!(names("?offset=10"), ["g10", "g11"]);
    assert_eq!(names("?offset=1&limit=2"), ["g1", "g2"]);
    assert_eq!(names("?limit=100").len(), 12);
    done(&api.get(&format!("{ALL}?limit=many")), 400);
}

/// Each write is decided on what the one before it left.
#[test]
fn writes_at_once_are_all_kept() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let at = format!("{}/keys", tenant.at);
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let (api, at) = (api.clone(), at.clone());
            std::thread::spawn(move || {
                let body = json!({"name": format!("k{number}")});
                api.ask("POST", &at, &body).status
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.join().unwrap(), 201);
    }
    assert_eq!(done(&api.get(&at), 200)["count"], 9);
    let native = api.get("/v1/keys").json();
    assert_eq!(native["items"].as_array().unwrap().len(), 9);
}

/// Secrets are not shown; what was shown can be sent back, and then they are what they were.
#[test]
fn what_was_shown_can_be_sent_back() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let secret = "upstream-secret-of-the-pool";
    learn(secret);
    let mut with = target(&upstream, 1);
    with["credentials"] = json!({"header_name": "X-Pool", "header_value": secret});
    with["priority"] = json!(1);
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let one = tenant.one("upstreams", &tenant.upstream);
    let put = json!({"name": "pool", "targets": [with]});
    let made = api.ask("PUT", &one, &put);
    // A target's priority never meant anything, which is said.
    assert_eq!(made.header("x-tollgate-notes"), Some("1"));
    let shown = tenant.get("upstreams", &tenant.upstream);
    assert_eq!(shown["targets"][0]["credentials"]["header_value"], "***");
    assert_eq!(shown["targets"][0]["priority"], 1);
    assert!(!done(&made, 200).to_string().contains(secret));
    let key = tenant.get("keys", &tenant.key);
    assert_eq!((&key["key"], &key["active"]), (&json!("***"), &json!(true)));

    let mut again = shown.clone();
    again["algorithm"] = json!("least-conn");
    done(&api.ask("PUT", &one, &again), 200);
    until("the credential to be sent", || {
        let reply = tenant.ask(gateway.address(), "/v1/x");
        (reply.status == 200).then_some(())
    });
    assert_eq!(upstream.last().header("x-pool").as_deref(), Some(secret));
    let mut other = shown;
    other["targets"][0]["port"] = json!(9);
    let told = done(&api.ask("PUT", &one, &other), 400);
    assert!(told["error"].as_str().unwrap().contains("***"), "{told}");
}
