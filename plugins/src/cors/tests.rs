//! Driven as browsers do it.

use http::Method;
use http::header::{HeaderMap, HeaderValue, VARY};
use serde_json::json;

use crate::testing::{Call, plugin, problems};

const PAGE: &str = "https://app.example.com";

fn preflight(origin: &str, method: &str) -> Call {
    Call::method(Method::OPTIONS)
        .header("origin", origin)
        .header("access-control-request-method", method)
}

#[test]
fn an_allowed_origin_gets_its_answer_marked() {
    let cors = plugin(
        "cors",
        json!({"allowed_origins": [PAGE], "allow_credentials": true, "expose_headers": ["X-Request-Id"]}),
    );
    let mut call = Call::post("{}").header("origin", PAGE);
    assert_eq!(call.pre_request(&cors), Ok(()));
    let mut upstream = HeaderMap::new();
    upstream.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    upstream.insert(
        "access-control-allow-origin",
        HeaderValue::from_static("https://other"),
    );
    let headers = call.answered_headers(upstream);
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert_eq!(headers["access-control-expose-headers"], "x-request-id");
    let vary: Vec<_> = headers.get_all(VARY).iter().collect();
    assert_eq!(vary, ["Accept-Encoding", "Origin"]);
}

#[test]
fn what_the_upstream_grants_does_not_hold() {
    let cors = plugin("cors", json!({"allowed_origins": [PAGE]}));
    let mut call = Call::post("{}").header("origin", PAGE);
    call.pre_request(&cors).unwrap();
    let mut upstream = HeaderMap::new();
    upstream.insert(
        "access-control-allow-credentials",
        HeaderValue::from_static("true"),
    );
    let headers = call.answered_headers(upstream);
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

#[test]
fn foreign_and_absent_origins_are_refused() {
    let cors = plugin(
        "cors",
        json!({"allowed_origins": [PAGE, "https://*.example.org:8443"]}),
    );
    let refused = |origin: &str| Call::post("{}").header("origin", origin).refused(&cors);
    assert_eq!(Call::post("{}").refused(&cors), Some(403));
    for origin in [
        "https://app.example.com.evil.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "null",
        "https://.example.org:8443",
        "https://evil-example.org:8443",
        "https://evil.com/.example.org:8443",
        "https://a@b.example.org:8443",
        "https://a.example.org",
        "https://example.org:8443",
        "",
    ] {
        assert_eq!(refused(origin), Some(403), "{origin}");
    }
    for origin in [
        PAGE,
        "HTTPS://App.Example.Com",
        "https://a.example.org:8443",
        "https://a.b.example.org:8443",
    ] {
        assert_eq!(refused(origin), None, "{origin}");
    }
    let refusal = Call::post("{}").pre_request(&cors).unwrap_err();
    assert!(refusal.headers.iter().any(|(name, _)| name == VARY));
}

#[test]
fn a_request_without_origin_may_be_let_through() {
    let cors = plugin(
        "cors",
        json!({"allowed_origins": [PAGE], "require_origin": false}),
    );
    let mut call = Call::post("{}");
    assert_eq!(call.pre_request(&cors), Ok(()));
    let headers = call.answered_headers(HeaderMap::new());
    assert_eq!(headers[VARY], "Origin");
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[test]
fn a_preflight_is_answered_here() {
    let settings = json!({
        "allowed_origins": [PAGE], "allowed_methods": ["get", "POST"], "allowed_headers": ["Authorization", "Content-Type"],
        "allow_credentials": true, "max_age": 86400,
    });
    let cors = plugin("cors", settings);
    let mut call = preflight(PAGE, "POST").header(
        "access-control-request-headers",
        "authorization, content-type",
    );
    let answer = call.pre_request(&cors).unwrap_err();
    assert_eq!(answer.status, 204);
    assert!(
        answer
            .body
            .as_ref()
            .is_some_and(|(_, body)| body.is_empty())
    );
    let headers: HeaderMap = answer.told().headers.into_iter().collect();
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert_eq!(headers["access-control-allow-methods"], "GET, POST");
    assert_eq!(
        headers["access-control-allow-headers"],
        "authorization, content-type"
    );
    assert_eq!(headers["access-control-max-age"], "86400");
    assert!(headers[VARY].to_str().unwrap().starts_with("Origin"));

    assert_eq!(preflight(PAGE, "DELETE").refused(&cors), Some(405));
    assert_eq!(
        preflight("https://evil.com", "POST").refused(&cors),
        Some(403)
    );
    let mut other = preflight(PAGE, "POST").header("access-control-request-headers", "x-other");
    assert_eq!(other.refused(&cors), Some(403));
    let mut no_method = Call::method(Method::OPTIONS).header("origin", PAGE);
    assert_eq!(no_method.refused(&cors), Some(400));
}

#[test]
fn every_origin_is_answered_alike() {
    let cors = plugin("cors", json!({"allowed_origins": ["*"], "max_age": "12h"}));
    let mut call = preflight("https://anywhere.net", "PUT")
        .header("access-control-request-headers", "x-stainless-lang");
    let headers: HeaderMap = call
        .pre_request(&cors)
        .unwrap_err()
        .told()
        .headers
        .into_iter()
        .collect();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["access-control-allow-headers"], "x-stainless-lang");
    assert_eq!(headers["access-control-max-age"], "43200");
}

#[test]
fn a_method_of_a_request_itself_must_be_allowed() {
    let cors = plugin(
        "cors",
        json!({"allowed_origins": [PAGE], "allowed_methods": ["GET"]}),
    );
    let refusal = Call::post("{}")
        .header("origin", PAGE)
        .pre_request(&cors)
        .unwrap_err();
    assert_eq!(refusal.status, 405);
    assert!(
        refusal
            .headers
            .iter()
            .any(|(name, value)| name == "allow" && value == "GET")
    );
}

#[test]
fn every_mistake_is_told_at_once() {
    let settings = json!({
        "allowed_origins": ["example.com", "https://x.com/path", "*"], "allow_credentials": true, "max_age": -1,
        "allowed_headers": ["a b"], "origin": "x",
    });
    let told = problems("cors", settings).join("\n");
    for part in [
        "allowed_origins[0]: \"example.com\": the scheme is missing (write",
        "allowed_origins[1]: \"https://x.com/path\": an origin is",
        "allow_credentials: credentials cannot be allowed to every origin",
        "max_age: may not be negative",
        "allowed_headers[0]: \"a b\": not a header name",
        "origin: unknown field",
    ] {
        assert!(told.contains(part), "{part}\nis not in\n{told}");
    }
    assert!(
        problems("cors", json!({}))
            .concat()
            .contains("missing field `allowed_origins`")
    );
    assert!(
        problems("cors", json!({"allowed_origins": []}))
            .concat()
            .contains("no origin")
    );
}
