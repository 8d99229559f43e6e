//! Rules: explicit routing, tried before the model's name.

use crate::harness::{CHAT, Gateway, Upstream, chat, get, post};

/// Rules over services `a` to `e` (http) and `llm` (model `m`), all at one upstream.
fn gateway(upstream: &Upstream, rules: &str) -> Gateway {
    let mut toml = String::new();
    for name in ["a", "b", "c", "d", "e"] {
        toml += &format!(
            "[[service]]\nname = \"{name}\"\ntype = \"http\"\ntargets = [\"{}\"]\n",
            upstream.url()
        );
    }
    toml += &crate::harness::service("llm", "m", &upstream.url());
    Gateway::start(&(toml + rules))
}

fn rule(fields: &str) -> String {
    format!("[[rule]]\ngateway = \"main\"\n{fields}\n")
}

/// The service and the path that were reached.
#[track_caller]
fn assert_reaches(
    gateway: &Gateway,
    upstream: &Upstream,
    request: &[u8],
    service: &str,
    path: &str,
) {
    let what = String::from_utf8_lossy(request)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut client = gateway.client();
    client.send(request);
    let reply = client.reply();
    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    assert_eq!(reply.header("x-tollgate-service"), Some(service), "{what}");
    assert_eq!(upstream.last().path(), path, "{what}");
}

#[test]
fn the_order_of_precedence() {
    let upstream = Upstream::obliging();
    let rules = rule("path = \"/x/*\"\nservices = [\"a\"]")
        + &rule("path = \"/x/y/*\"\nservices = [\"b\"]")
        + &rule("path = \"/x/{p}\"\nservices = [\"c\"]")
        + &rule("path = \"/x/y\"\nservices = [\"d\"]")
        + &rule("path = \"/x/*\"\nheaders = { X-Team = \"red\" }\nservices = [\"e\"]")
        + &rule("path = \"/first/*\"\nservices = [\"a\"]")
        + &rule("path = \"/first/*\"\nservices = [\"b\"]")
        + &rule("path = \"/high/exact\"\nservices = [\"a\"]")
        + &rule("path = \"/high/*\"\npriority = 1\nservices = [\"b\"]");
    let gateway = gateway(&upstream, &rules);
    for (path, fields, service) in [
        ("/x/y", "", "d"),
        ("/x/other", "", "c"),
        ("/x/y/z", "", "b"),
        ("/x/w/z", "", "a"),
        ("/x/w/z", "x-team: red\r\n", "e"),
        ("/x/w/z", "x-team: blue\r\n", "a"),
        // A longer prefix stands before more predicates.
        ("/x/y/z", "x-team: red\r\n", "b"),
        ("/first/x", "", "a"),
        ("/high/exact", "", "b"),
    ] {
        assert_reaches(&gateway, &upstream, &get(path, fields), service, path);
    }
}

#[test]
fn a_prefix_ends_at_a_slash() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, &rule("path = \"/api/*\"\nservices = [\"a\"]"));
    for path in ["/api", "/api/", "/api/x?y=z", "/api/x/y"] {
        assert_reaches(&gateway, &upstream, &get(path, ""), "a", path);
    }
    for path in ["/apis", "/ap", "/", "/API/x", "/x/api/y", "//api/x"] {
        gateway
            .client()
            .get(path, "")
            .assert_refused(404, "route_not_found");
    }
}

#[test]
fn a_stripped_prefix_is_not_sent() {
    let upstream = Upstream::obliging();
    let rules = rule("path = \"/api/*\"\nstrip_path = true\nservices = [\"a\"]")
        + &rule("path = \"/one/{x}/*\"\nstrip_path = true\nservices = [\"b\"]")
        + &rule("path = \"/exact\"\nstrip_path = true\nservices = [\"c\"]");
    let gateway = gateway(&upstream, &rules);
    for (path, service, sent) in [
        ("/api/x/y?q=/api", "a", "/x/y?q=/api"),
        ("/api", "a", "/"),
        ("/api/", "a", "/"),
        ("/api?q", "a", "/?q"),
        ("/api/a%2Fb", "a", "/a%2Fb"),
        ("/one/two/three", "b", "/three"),
        ("/exact", "c", "/"),
    ] {
        assert_reaches(&gateway, &upstream, &get(path, ""), service, sent);
    }
}

#[test]
fn a_path_is_rewritten_with_its_parameters() {
    let upstream = Upstream::obliging();
    let rules = rule(
        "path = \"/users/{id}/posts/{post}\"\nrewrite = \"/v2/{post}/of/{id}\"\nservices = [\"a\"]",
    ) + &rule("path = \"/old/*\"\nrewrite = \"/new\"\nservices = [\"b\"]");
    let gateway = gateway(&upstream, &rules);
    for (path, service, sent) in [
        ("/users/7/posts/hello", "a", "/v2/hello/of/7"),
        ("/users/7/posts/hello?x=1", "a", "/v2/hello/of/7?x=1"),
        ("/users/a%2Fb/posts/c%20d", "a", "/v2/c%20d/of/a%2Fb"),
        ("/users/{post}/posts/{id}", "a", "/v2/{id}/of/{post}"),
        ("/old/x/y?z", "b", "/new?z"),
    ] {
        assert_reaches(&gateway, &upstream, &get(path, ""), service, sent);
    }
    for path in ["/users/7/posts", "/users//posts/1", "/users/7/posts/1/2"] {
        gateway
            .client()
            .get(path, "")
            .assert_refused(404, "route_not_found");
    }
}

#[test]
fn methods_narrow_a_rule() {
    let upstream = Upstream::obliging();
    let rules = rule("path = \"/doc\"\nmethods = [\"GET\", \"DELETE\"]\nservices = [\"a\"]")
        + &rule("path = \"/doc\"\nmethods = [\"PUT\"]\nservices = [\"b\"]");
    let gateway = gateway(&upstream, &rules);
    assert_reaches(&gateway, &upstream, &get("/doc", ""), "a", "/doc");
    let put = b"PUT /doc HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    assert_reaches(&gateway, &upstream, put, "b", "/doc");
    let mut client = gateway.client();
    client.send(b"PATCH /doc HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    let reply = client.reply();
    reply.assert_refused(405, "method_not_allowed");
    let allow = reply.header("allow").unwrap();
    let mut allowed: Vec<&str> = allow
        .split(", ")
        .filter(|method| *method != "HEAD")
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "PUT"]);
    client.send(b"PATCH /other HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    client.reply().assert_refused(404, "route_not_found");
}

#[test]
fn headers_narrow_a_rule() {
    let upstream = Upstream::obliging();
    let rules = rule(
        "path = \"/h\"\nheaders = { X-Exact = \"one\", X-Also = \"two\" }\nservices = [\"a\"]",
    ) + &rule(
        "path = \"/h\"\nheaders = { X-Version = { regex = \"^v([2-9]|1[0-9])$\" } }\nservices = [\"b\"]",
    );
    let gateway = gateway(&upstream, &rules);
    let both = "x-exact: one\r\nX-ALSO: two\r\n";
    assert_reaches(&gateway, &upstream, &get("/h", both), "a", "/h");
    for version in ["v2", "v10"] {
        let fields = format!("x-version: {version}\r\n");
        assert_reaches(&gateway, &upstream, &get("/h", &fields), "b", "/h");
    }
    for fields in [
        "",
        "x-exact: one\r\n",
        "x-exact: One\r\nx-also: two\r\n",
        "x-version: v1\r\n",
        "x-version: v20\r\n",
    ] {
        gateway
            .client()
            .get("/h", fields)
            .assert_refused(404, "route_not_found");
    }
}

#[test]
fn a_model_narrows_a_rule() {
    let upstream = Upstream::obliging();
    let rules = rule("model = \"special*\"\nservices = [\"a\"]")
        + &rule("path = \"/v1/embeddings\"\nmodel = \"m\"\nservices = [\"b\"]");
    let gateway = gateway(&upstream, &rules);
    assert_reaches(
        &gateway,
        &upstream,
        &post(CHAT, "", chat("special-1")),
        "a",
        CHAT,
    );
    assert_reaches(&gateway, &upstream, &post(CHAT, "", chat("m")), "llm", CHAT);
    let embed = post("/v1/embeddings", "", chat("m"));
    assert_reaches(&gateway, &upstream, &embed, "b", "/v1/embeddings");
    gateway
        .client()
        .chat("nobody", "")
        .assert_refused(404, "model_not_found");
}

/// A rule without services only says how; the model says where to.
#[test]
fn a_rule_without_services_goes_by_model() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        &rule("path = \"/team/*\"\nstrip_path = true\npreserve_host = true"),
    );
    assert_reaches(
        &gateway,
        &upstream,
        &post("/team/v1/chat/completions", "", chat("m")),
        "llm",
        CHAT,
    );
    assert_eq!(upstream.last().header("host").as_deref(), Some("test"));
    gateway
        .client()
        .post("/team/v1/chat/completions", chat("x"))
        .assert_refused(404, "model_not_found");
}

#[test]
fn the_clients_host_is_sent_where_wanted() {
    let upstream = Upstream::obliging();
    let rules = rule("path = \"/keep\"\npreserve_host = true\nservices = [\"a\"]")
        + &rule("path = \"/own\"\nservices = [\"a\"]");
    let gateway = gateway(&upstream, &rules);
    gateway.client().get("/keep", "").assert_ok();
    assert_eq!(upstream.last().header("host").as_deref(), Some("test"));
    gateway.client().get("/own", "").assert_ok();
    assert_eq!(
        upstream.last().header("host"),
        Some(upstream.address().to_string())
    );
}

/// A rule that takes any path comes after all that name one.
#[test]
fn rules_come_before_models_and_after_nothing() {
    let upstream = Upstream::obliging();
    let rules = rule("methods = [\"GET\"]\nservices = [\"e\"]")
        + &rule("path = \"/a\"\nservices = [\"a\"]");
    let gateway = gateway(&upstream, &rules);
    assert_reaches(&gateway, &upstream, &get("/a", ""), "a", "/a");
    assert_reaches(&gateway, &upstream, &get("/anything", ""), "e", "/anything");
    assert_reaches(&gateway, &upstream, &post(CHAT, "", chat("m")), "llm", CHAT);
}

/// `path_prefix` of a service is a rule in short.
#[test]
fn a_service_has_a_prefix_of_its_own() {
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let toml = format!(
        "[[service]]\nname = \"p\"\ntype = \"http\"\npath_prefix = \"/tickets\"\ntargets = [\"{url}\"]\n[[service]]\nname = \"q\"\ntype = \"http\"\npath_prefix = \"/kept\"\nstrip_prefix = false\ntargets = [\"{url}\"]\n"
    );
    let gateway = Gateway::start(&toml);
    for (path, service, sent) in [
        ("/tickets/7?x", "p", "/7?x"),
        ("/tickets", "p", "/"),
        ("/kept/7", "q", "/kept/7"),
    ] {
        assert_reaches(&gateway, &upstream, &get(path, ""), service, sent);
    }
    gateway
        .client()
        .get("/ticketsx", "")
        .assert_refused(404, "route_not_found");
}
