use tollgate_sdk::document::{Format, Key, Reading, Span, Value};

use super::*;

fn node(value: &Json) -> Node {
    let value = match value {
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(entries) => {
            let key = |text: &String| Key {
                span: Span::default(),
                text: text.clone(),
            };
            Value::Table(
                entries
                    .iter()
                    .map(|(name, value)| (key(name), node(value)))
                    .collect(),
            )
        }
        other => panic!("no test writes {other}"),
    };
    Node::new(Span::default(), value)
}

fn read(value: Json) -> (Option<Auth>, Vec<String>) {
    let no_file = |_: &str| Err("there are no files here".to_owned());
    let mut r = Reading::new(Format::Toml, &no_file);
    let read = Auth::read(&node(&value), &At::ROOT.field("auth"), &mut r);
    let said = r.problems.iter().map(|problem| {
        assert!(problem.help.is_some(), "{problem:?}");
        format!("{}: {}", problem.path, problem.message)
    });
    (read, said.collect())
}

fn fine(value: Json) -> Auth {
    let (auth, problems) = read(value);
    assert_eq!(problems, Vec::<String>::new());
    auth.unwrap()
}

#[track_caller]
fn refused(value: Json, expected: &[&str]) {
    assert_eq!(read(value).1, expected);
}

#[test]
fn each_type_has_its_settings() {
    assert_eq!(fine(json!("none")).by, AuthBy::None);
    assert_eq!(fine(json!("api_key")), Auth::API_KEY);
    let jwt = fine(json!({
        "type": "jwt", "issuer": "https://id.example.com", "audience": "tollgate",
        "jwks_url": "https://id.example.com/jwks", "claims": {"models": "tollgate.models"},
    }));
    let AuthBy::Jwt(jwt) = jwt.by else {
        panic!("{jwt:?}")
    };
    assert_eq!(jwt.audience, ["tollgate"]);
    assert_eq!(jwt.leeway, Duration::from_secs(60));
    assert_eq!(
        (jwt.claims.subject.as_str(), jwt.claims.services),
        ("sub", None)
    );
    assert_eq!(jwt.claims.models.as_deref(), Some("tollgate.models"));
    let http = fine(json!({"type": "http", "url": "http://id:8001/me", "header": "X-Token"}));
    assert_eq!(http.header, Some(HeaderName::from_static("x-token")));
    let AuthBy::Http(http) = http.by else {
        panic!("{http:?}")
    };
    assert_eq!((http.method, http.url.authority()), (AskBy::Get, "id:8001"));
    let times = (
        http.timeout.as_secs(),
        http.cache.as_secs(),
        http.stale.as_secs(),
    );
    assert_eq!(times, (2, 60, 600));
}

#[test]
fn what_is_written_back_is_read_as_the_same() {
    for value in [
        json!("none"),
        json!({"type": "api_key", "header": "x-key"}),
        json!({"type": "jwt", "jwks_file": "/k.json", "audience": ["a", "b"], "leeway": "5s"}),
        json!({"type": "http", "url": "https://id.example.com/me?x=1", "method": "POST", "cache": "5s"}),
    ] {
        let auth = fine(value);
        assert_eq!(fine(auth.value()), auth, "{}", auth.value());
    }
}

#[test]
fn fields_of_another_type_are_refused_by_name() {
    refused(
        json!({"type": "api_key", "jwks_url": "https://a/", "url": "https://a/"}),
        &[
            "auth.jwks_url: jwks_url means nothing with type = \"api_key\"",
            "auth.url: url means nothing with type = \"api_key\"",
        ],
    );
    refused(
        json!({"type": "jwt", "jwks_url": "https://a/", "cache": "1s"}),
        &["auth.cache: cache means nothing with type = \"jwt\""],
    );
    refused(
        json!({"type": "http", "url": "https://a/", "leeway": "1s"}),
        &["auth.leeway: leeway means nothing with type = \"http\""],
    );
    refused(
        json!({"type": "none", "header": "X-Key"}),
        &["auth.header: header means nothing with type = \"none\""],
    );
}

#[test]
fn settings_that_cannot_work_are_refused() {
    refused(json!("jwt"), &["auth: \"jwt\" needs settings"]);
    refused(json!("http"), &["auth: \"http\" needs settings"]);
    refused(
        json!({"type": "jwt"}),
        &["auth: missing field `jwks_url` (or `jwks_file`)"],
    );
    refused(
        json!({"type": "jwt", "jwks_url": "https://a/", "jwks_file": "/a"}),
        &["auth.jwks_file: given beside `jwks_url`"],
    );
    refused(
        json!({"type": "jwt", "jwks_file": "a.json"}),
        &["auth.jwks_file: \"a.json\": not an absolute path"],
    );
    refused(
        json!({"type": "jwt", "jwks_url": "https://a/", "issuer": ""}),
        &["auth.issuer: it is empty"],
    );
    refused(
        json!({"type": "jwt", "jwks_url": "https://a/", "claims": {"limits": "x"}}),
        &["auth.claims.limits: limits is not supported yet by this version"],
    );
    refused(json!({"type": "http"}), &["auth: missing field `url`"]);
    refused(
        json!({"type": "http", "url": "https://a/", "timeout": "0s", "cache": "0s"}),
        &["auth.timeout: no time at all", "auth.cache: no time at all"],
    );
    let own = json!({"Authorization": "Basic abc"});
    refused(
        json!({"type": "http", "url": "https://a/", "headers": own}),
        &["auth.headers: with method = \"GET\", `Authorization` is the client's token"],
    );
    fine(json!({"type": "http", "url": "https://a/", "headers": own, "method": "POST"}));
}

#[test]
fn urls_are_of_the_web_and_hold_no_credential() {
    for (url, message) in [
        ("id.example.com/me", "\"id.example.com/me\": not a URL"),
        ("ftp://a/", "\"ftp://a/\": neither http nor https"),
        (
            "file:///etc/passwd",
            "\"file:///etc/passwd\": neither http nor https",
        ),
        ("https://user:word@a/", "a URL may not hold a credential"),
        ("https://a/#x", "\"https://a/#x\": a fragment is never sent"),
    ] {
        let message = format!("auth.url: {message}");
        let mut said = read(json!({"type": "http", "url": url})).1;
        said.truncate(1);
        assert_eq!(said, [message]);
    }
}
