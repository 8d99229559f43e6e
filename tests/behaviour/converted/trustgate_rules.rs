//! TrustGate: which rule takes a request, and what its target is sent.

use serde_json::{Value, json};
use tollgate::config::foreign::{Fate, Options};

use super::trustgate::{HOST, Set, caller, target};
use super::{Caller, Conversion, assert_from, named};
use crate::harness::{Gateway, Upstream, chat};

/// A gateway with a service for each of these paths, called by it; each answers with its path.
struct Rules {
    gateway: Gateway,
    upstreams: Vec<(String, Upstream)>,
}

impl Rules {
    fn start(paths: &[&str], change: impl Fn(&str, &mut Value)) -> Rules {
        let mut all = vec![json!({"name": "Edge", "subdomain": "edge"})];
        let mut upstreams = Vec::new();
        for path in paths {
            let upstream = named(path);
            let mut service = target(&upstream);
            service["name"] = json!(path);
            service["type"] = json!("endpoint");
            all.push(service);
            let mut rule =
                json!({"name": path, "path": path, "service_id": path, "methods": ["GET"]});
            change(path, &mut rule);
            all.push(rule);
            upstreams.push(((*path).to_owned(), upstream));
        }
        let conversion = Conversion::of(&[&Value::from(all).to_string()], &Options::default());
        let gateway = conversion.start();
        Rules { gateway, upstreams }
    }

    fn caller(&self) -> Caller<'_> {
        caller(&self.gateway)
    }

    fn sent(&self, path: &str) -> crate::harness::Request {
        let found = self.upstreams.iter().find(|(known, _)| known == path);
        found.unwrap().1.last()
    }
}

#[test]
fn the_best_path_wins() {
    let paths = [
        "/*",
        "/users/*",
        "/users/{id}",
        "/users/{id}/*",
        "/users/admin/*",
        "/users/me",
        "/users/{id}/posts",
        "/v1/chat",
        "/v1/*",
    ];
    let rules = Rules::start(&paths, |_, _| {});
    let caller = rules.caller();
    for (path, by) in [
        ("/users/me", "/users/me"),
        ("/users/7", "/users/{id}"),
        ("/users/a-b_c", "/users/{id}"),
        ("/users/7/posts", "/users/{id}/posts"),
        ("/users/7/files", "/users/{id}/*"),
        // Two segments that are told weigh more than one and a parameter.
        ("/users/admin/files", "/users/admin/*"),
        ("/users/admin/files/x", "/users/admin/*"),
        ("/v1/chat", "/v1/chat"),
        // A slash at the end counts.
        ("/v1/chat/", "/v1/*"),
        ("/v1/chat/x", "/v1/*"),
        ("/else", "/*"),
    ] {
        assert_from(&caller.get(&format!("{path}?a=b&c=")), by);
        assert_eq!(rules.sent(by).path(), format!("{path}?a=b&c="));
    }
}

/// Without a path that ends in /* a rule takes what is below its own, as the guides have it.
#[test]
fn guides_and_wildcards() {
    let rules = Rules::start(&["/v1", "/v1/chat"], |_, _| {});
    let caller = rules.caller();
    for (path, by) in [
        ("/v1", "/v1"),
        ("/v1/models", "/v1"),
        ("/v1/chat", "/v1/chat"),
        ("/v1/chat/completions", "/v1/chat"),
        ("/v1/chatter", "/v1"),
    ] {
        assert_from(&caller.get(path), by);
    }
    caller.get("/v10").assert_refused(404, "route_not_found");
    caller.get("/").assert_refused(404, "route_not_found");

    let rules = Rules::start(&["/v1", "/v2/*"], |_, _| {});
    let caller = rules.caller();
    assert_from(&caller.get("/v1"), "/v1");
    caller
        .get("/v1/models")
        .assert_refused(404, "route_not_found");
    assert_from(&caller.get("/v2/models"), "/v2/*");
    // Otherwise than theirs, and said.
    assert_from(&caller.get("/v2"), "/v2/*");
    let set = json!({"name": "r", "path": "/v2/*", "methods": ["GET"], "service_id": "s"});
    let conversion = Conversion::of(&[&set.to_string()], &Options::default());
    conversion.tells("path", Fate::Adapted, "it also matches /v2 itself");
}

#[test]
fn methods_and_what_is_not_active() {
    let rules = Rules::start(&["/a", "/b", "/c", "/d/*"], |path, rule| match path {
        "/b" => rule["methods"] = json!(["POST", "DELETE"]),
        "/c" => rule["active"] = json!(false),
        _ => {}
    });
    let caller = rules.caller();
    assert_from(&caller.get("/a"), "/a");
    assert_from(&caller.send("DELETE", "/b", ""), "/b");
    let reply = caller.get("/b");
    reply.assert_refused(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("DELETE, POST"));
    caller.get("/c").assert_refused(404, "route_not_found");
}

#[test]
fn public_rules_need_no_key_and_paths_are_many() {
    let rules = Rules::start(&["/open/*", "/closed/*"], |path, rule| {
        if path == "/open/*" {
            rule["public"] = json!(true);
            rule["paths"] = json!(["/also/*", "/exactly"]);
        }
    });
    let stranger = Caller::new(&rules.gateway, HOST);
    for path in ["/open/a", "/also/a/b", "/exactly"] {
        assert_from(&stranger.get(path), "/open/*");
    }
    stranger
        .get("/exactly/not")
        .assert_refused(404, "route_not_found");
    stranger
        .get("/closed/a")
        .assert_refused(401, "invalid_api_key");
    assert_from(&rules.caller().get("/closed/a"), "/closed/*");
}

/// A target's path is sent instead of the request's, with the rule's parameters; with `strip_path` what follows the rule's comes behind it.
#[test]
fn what_a_target_is_sent() {
    for (rule, strip, target_path, asked, sent) in [
        (
            "/v1/chat/*",
            false,
            Some("/v1/chat/completions"),
            "/v1/chat/x?a=1",
            "/v1/chat/completions?a=1",
        ),
        (
            "/test/{id}",
            false,
            Some("/{id}/mirror"),
            "/test/a-b_1",
            "/a-b_1/mirror",
        ),
        (
            "/test/{id}",
            false,
            Some("/{id}/{user_id}"),
            "/test/7",
            "/7/%7Buser_id%7D",
        ),
        (
            "/files/*",
            true,
            Some("/store"),
            "/files/a/b?c=d",
            "/store/a/b?c=d",
        ),
        ("/files/*", true, Some("/store"), "/files", "/store/"),
        ("/file", true, Some("/store"), "/file", "/store"),
        ("/files/*", true, None, "/files/a?b", "/a?b"),
        ("/files/*", false, None, "/files/a?b", "/files/a?b"),
        // To the upstream's root.
        ("/only/*", true, None, "/only", "/"),
        ("/users/{id}/*", true, None, "/users/7/a/b", "/a/b"),
    ] {
        let upstream = named("x");
        let mut one = target(&upstream);
        if let Some(path) = target_path {
            one["path"] = json!(path);
        }
        let mut set = Set::of(json!([one]));
        set.rule["path"] = json!(rule);
        set.rule["strip_path"] = json!(strip);
        // Another path with a star makes the others exact.
        set.more = vec![
            json!({"path": "/star/*", "service_id": "s2", "methods": ["GET"]}),
            json!({"name": "s2", "type": "endpoint", "host": "127.0.0.1", "port": 9}),
        ];
        let gateway = set.start();
        assert_from(&caller(&gateway).get(asked), "x");
        assert_eq!(
            upstream.last().path(),
            sent,
            "{rule} to {target_path:?}, stripped: {strip}"
        );
    }
}

#[test]
fn headers_of_targets_and_hosts() {
    let upstream = named("x");
    let mut one = target(&upstream);
    one["headers"] = json!({"X-Team": "research"});
    one["credentials"] = json!({"header_name": "X-Key", "header_value": "not-a-real-secret"});
    let mut set = Set::of(json!([one]));
    set.rule["headers"] = json!({"X-Any": "1"});
    for (keep, host) in [
        (false, upstream.address().to_string()),
        (true, HOST.to_owned()),
    ] {
        set.rule["preserve_host"] = json!(keep);
        let conversion = set.convert();
        conversion.tells("[3].headers", Fate::Warned, "never compared");
        let gateway = conversion.start();
        let caller = caller(&gateway).with("x-team: mine\r\nx-other: mine\r\nx-key: mine\r\n");
        assert_from(&caller.send("POST", "/v1/x", &chat("m")), "x");
        let sent = upstream.last();
        assert_eq!(sent.header("host").as_deref(), Some(host.as_str()));
        assert_eq!(sent.header("x-team").as_deref(), Some("research"));
        assert_eq!(sent.header("x-key").as_deref(), Some("not-a-real-secret"));
        assert_eq!(sent.header("x-other").as_deref(), Some("mine"));
    }
}
