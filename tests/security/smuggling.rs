//! Requests whose length two servers might read differently: none may become two at the upstream.
//!
//! Every payload goes to a service that streams bodies and to one that reads them whole, and behind it on the same
//! connection stands a request for `/smuggled` that must never be seen.

use std::time::Duration;

use crate::harness::{Gateway, Upstream};

/// What a client may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Refused before anything reaches the upstream, and the connection is over.
    Refused,
    /// Refused or forwarded as one request that can be read in one way only.
    One,
}

use Want::{One, Refused};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

fn gateway(upstream: &Upstream) -> Gateway {
    let url = upstream.url();
    Gateway::start(&format!(
        r#"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
routing = {{ by = "header", header = "X-Model" }}
[[service]]
name = "raw"
type = "http"
path_prefix = "/raw"
strip_prefix = false
targets = ["{url}"]
[[service]]
name = "whole"
models = ["m"]
targets = ["{url}"]
"#
    ))
}

/// `head` without its request line and the last empty line; `$` in it stands for CRLF. Lines before it name host and
/// model.
fn check(name: &str, version: &str, head: &str, body: &str, want: Want) {
    let head = head.replace('$', "\r\n");
    for path in ["/raw/x", "/v1/x"] {
        let upstream = Upstream::obliging();
        let gateway = gateway(&upstream);
        let what = format!("{name} to {path}");
        let host = if head.to_lowercase().contains("host:") {
            ""
        } else {
            "host: test\r\n"
        };
        let fields = format!("{host}x-model: m\r\ncontent-type: text/plain\r\n");
        let payload = format!("POST {path} {version}\r\n{fields}{head}\r\n\r\n{body}");
        let mut client = gateway.client();
        client.patience(Duration::from_millis(400));
        let _ = client.try_send(payload.as_bytes());
        let answers = String::from_utf8_lossy(&client.rest()).into_owned();
        let count = answers.matches("HTTP/1.1 ").count();
        let requests = upstream.requests();
        for request in &requests {
            request.assert_unambiguous();
            assert!(
                !request.path().contains("smuggled"),
                "{what}: smuggled: {requests:?}"
            );
        }
        assert!(requests.len() <= 1, "{what}: became {requests:?}");
        assert!(
            !answers.is_empty() || want == One,
            "{what}: closed without a word"
        );
        if want == Refused {
            assert!(answers.starts_with("HTTP/1.1 4"), "{what}: {answers}");
            let received = upstream.received().concat();
            assert!(
                received.is_empty(),
                "{what}: {}",
                String::from_utf8_lossy(&received)
            );
            assert_eq!(count, 1, "{what}: the connection went on: {answers}");
        }
    }
}

fn refused(name: &str, head: &str, body: &str) {
    check(name, "HTTP/1.1", head, body, Refused);
}

fn one(name: &str, head: &str, body: &str) {
    check(name, "HTTP/1.1", head, body, One);
}

#[test]
fn two_lengths_for_one_body() {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let length = chunked.len();
    refused(
        "CL.TE",
        &format!("content-length: {length}$transfer-encoding: chunked"),
        &chunked,
    );
    refused(
        "TE.CL",
        &format!("transfer-encoding: chunked$content-length: {length}"),
        &chunked,
    );
    refused(
        "short CL.TE",
        "content-length: 4$transfer-encoding: chunked",
        &chunked,
    );
    refused(
        "CL 0 with TE",
        "content-length: 0$transfer-encoding: chunked",
        &chunked,
    );
    refused(
        "case",
        "Content-LENGTH: 4$TRANSFER-encoding: chunked",
        &chunked,
    );
    refused(
        "CL.TE.CL",
        "content-length: 4$transfer-encoding: chunked$content-length: 4",
        &chunked,
    );
    refused(
        "differing",
        "content-length: 5$content-length: 60",
        &format!("hello{SMUGGLED}"),
    );
    refused(
        "differing list",
        "content-length: 5, 60",
        &format!("hello{SMUGGLED}"),
    );
    // Equal ones may be taken for one; what follows them is then a second request of this client's.
    one("equal", "content-length: 5$content-length: 5", "hello");
    one("equal list", "content-length: 5, 5", "hello");
}

#[test]
fn lengths_that_are_none() {
    for length in [
        "-5",
        "+5",
        "0x5",
        "5.0",
        "5 5",
        "5;5",
        "five",
        "99999999999999999999999999",
        "\u{660}",
    ] {
        refused(
            length,
            &format!("content-length: {length}"),
            &format!("hello{SMUGGLED}"),
        );
    }
    one("an empty length", "content-length:", "");
}

#[test]
fn codings_that_are_none() {
    let body = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip",
        "chunked;q=1",
        "chun ked",
        "\"chunked\"",
        "\x0bchunked",
        "chunked\x0b",
    ] {
        refused(coding, &format!("transfer-encoding: {coding}"), &body);
    }
    let alone = "5\r\nhello\r\n0\r\n\r\n";
    one(
        "a list of codings",
        "transfer-encoding: gzip, chunked",
        alone,
    );
    one(
        "twice in a list",
        "transfer-encoding: chunked, chunked",
        alone,
    );
    one(
        "twice",
        "transfer-encoding: chunked$transfer-encoding: chunked",
        alone,
    );
    one(
        "identity first",
        "transfer-encoding: identity$transfer-encoding: chunked",
        alone,
    );
    one("an empty list", "transfer-encoding:", "");
}

/// A space before the colon hides a header from some and not from others.
#[test]
fn names_with_spaces() {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let length = body.len();
    refused(
        "TE with a space",
        &format!("content-length: {length}$transfer-encoding : chunked"),
        &body,
    );
    refused(
        "CL with a space",
        "content-length : 5$transfer-encoding: chunked",
        &body,
    );
    refused("CL with a tab", "content-length\t: 5", "hello");
    refused("any with a space", "x-thing : 1$content-length: 5", "hello");
    refused("no name", ": value$content-length: 5", "hello");
    refused("a space in a name", "x thing: 1$content-length: 5", "hello");
    refused("no colon", "something$content-length: 5", "hello");
}

#[test]
fn folded_lines() {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let length = body.len();
    refused(
        "a folded coding",
        &format!("content-length: {length}$transfer-encoding:$ chunked"),
        &body,
    );
    refused("a folded value", "x-thing: a$ b$content-length: 5", "hello");
    refused(
        "a folded value, tab",
        "x-thing: a$\tb$content-length: 5",
        "hello",
    );
    refused("a folded length", "content-length: 5$ 6", "hello");
    refused("a fold first", " x: 1$content-length: 5", "hello");
}

/// Line feeds without carriage returns: whoever splits there sees other headers.
#[test]
fn bare_line_feeds() {
    one(
        "in a value",
        "x-thing: a\ntransfer-encoding: chunked$content-length: 5",
        "hello",
    );
    one("as line ends", "x-thing: a\ncontent-length: 5", "hello");
    one(
        "as the end of the head",
        "content-length: 5\n\nGET /smuggled HTTP/1.1\r\nhost: test",
        "",
    );
    refused(
        "a bare carriage return",
        "x-thing: a\rtransfer-encoding: chunked$content-length: 5",
        "hello",
    );
    refused("a NUL", "x-thing: a\0b$content-length: 5", "hello");
    refused(
        "a control character",
        "x-thing: a\x08b$content-length: 5",
        "hello",
    );
}

#[test]
fn old_http() {
    let body = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    check(
        "HTTP/1.0 with TE",
        "HTTP/1.0",
        "transfer-encoding: chunked$connection: keep-alive",
        &body,
        Refused,
    );
    check(
        "HTTP/1.0 with both",
        "HTTP/1.0",
        "content-length: 5$transfer-encoding: chunked",
        &body,
        Refused,
    );
    check("HTTP/0.9", "", "", "", One);
    check(
        "HTTP/2.0 in text",
        "HTTP/2.0",
        "content-length: 5",
        "hello",
        One,
    );
    check("HTTP/1.2", "HTTP/1.2", "content-length: 5", "hello", One);
    check(
        "no number",
        "HTTP/x.y",
        "content-length: 5",
        "hello",
        Refused,
    );
}

/// Chunks that are none. The head is fine, so a streamed request may have reached the upstream; it must not end there
/// as if it were whole.
#[test]
fn chunks_that_are_none() {
    let head = "transfer-encoding: chunked";
    for (name, body) in [
        ("overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("huge", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("space first", " 5\r\nhello\r\n0\r\n\r\n"),
        ("empty", "\r\nhello\r\n0\r\n\r\n"),
        ("no end of chunk", "5\r\nhelloXX0\r\n\r\n"),
        ("short", "3\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after data", "5\r\nhello\n0\r\n\r\n"),
        ("LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("underscore", "1_0\r\nhello\r\n0\r\n\r\n"),
    ] {
        one(name, head, &format!("{body}{SMUGGLED}"));
    }
}

#[test]
fn whose_host() {
    refused(
        "two hosts",
        "host: test$host: other$content-length: 5",
        "hello",
    );
    one(
        "a host list",
        "host: test, other$content-length: 5",
        "hello",
    );
    one(
        "a host with a path",
        "host: test/raw$content-length: 5",
        "hello",
    );
    one(
        "a host with a user",
        "host: user@test$content-length: 5",
        "hello",
    );
    one("an empty host", "host:$content-length: 5", "hello");
    one(
        "a host with a space",
        "host: te st$content-length: 5",
        "hello",
    );
}
