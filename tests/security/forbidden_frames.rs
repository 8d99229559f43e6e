//! HTTP/2 requests that would be two things at once if they were written as HTTP/1.1.

use crate::harness::{Gateway, RawH2, Upstream};

type Fields = &'static [(&'static [u8], &'static [u8])];

const PSEUDO: Fields = &[
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/raw/x"),
    (b":authority", b"test"),
];

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\nstrip_prefix = false\ntargets = [\"{}\"]\n",
        upstream.url()
    ))
}

/// Sends a request with these fields and `hello` as its body. Whether it was refused.
fn send(upstream: &Upstream, fields: &[(&[u8], &[u8])], what: &str) -> bool {
    let gateway = gateway(upstream);
    let mut client = RawH2::connect(gateway.address());
    client.headers(1, fields, false);
    client.data(1, b"hello", true);
    let refused = match client.outcome(1) {
        Some(frame) => frame.refuses(),
        None => true,
    };
    for request in upstream.requests() {
        request.assert_unambiguous();
        assert!(!request.path().contains("smuggled"), "{what}: {request:?}");
        assert_eq!(request.body, b"hello", "{what}");
    }
    refused
}

#[test]
fn an_honest_request_passes() {
    let upstream = Upstream::obliging();
    assert!(!send(&upstream, PSEUDO, "plain"));
    assert_eq!(upstream.requests().len(), 1);
}

/// RFC 9113 section 8.2.2: these make a request malformed.
#[test]
fn headers_of_the_connection_are_refused() {
    let forbidden: &[(&[u8], &[u8])] = &[
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"connection", b"x-thing"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
    ];
    for (name, value) in forbidden {
        let upstream = Upstream::obliging();
        let what = String::from_utf8_lossy(name).into_owned();
        let fields = [PSEUDO, &[(*name, *value)]].concat();
        let refused = send(&upstream, &fields, &what);
        let reached = upstream.requests();
        assert!(refused, "{what} was accepted: {reached:?}");
        assert!(
            reached.is_empty(),
            "{what} reached the upstream: {reached:?}"
        );
    }
}

/// Names and values that end a line in HTTP/1.1.
#[test]
fn line_ends_are_refused() {
    let smuggled = b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n".as_slice();
    let evil: &[(&[u8], &[u8])] = &[
        (b"x-thing", smuggled),
        (b"x-thing", b"a\nx-other: b"),
        (b"x-thing", b"a\rb"),
        (b"x-thing", b"a\0b"),
        (b"x-thing\r\nx-other", b"a"),
        (b"x-thing: a\r\nx-other", b"b"),
        (b"x thing", b"a"),
        (b"X-Thing", b"a"),
        (b"", b"a"),
    ];
    for (name, value) in evil {
        let upstream = Upstream::obliging();
        let what = format!(
            "{:?}: {:?}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        );
        let fields = [PSEUDO, &[(*name, *value)]].concat();
        assert!(send(&upstream, &fields, &what), "{what} was accepted");
        assert!(
            upstream.requests().is_empty(),
            "{what}: {:?}",
            upstream.requests()
        );
    }
}

/// The same in what becomes the request line and the host.
#[test]
fn pseudo_headers_are_held_to_the_same() {
    let lines: &[(&[u8], &[u8])] = &[
        (
            b":path",
            b"/raw/x HTTP/1.1\r\nhost: test\r\n\r\nGET /smuggled",
        ),
        (b":path", b"/raw/x /smuggled"),
        (b":path", b"/raw/x\n"),
        (b":path", b""),
        (b":path", b"raw/x"),
        (
            b":method",
            b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\nPOST",
        ),
        (b":method", b"PO ST"),
        (b":method", b"CONNECT"),
        (b":authority", b"test\r\nx: y"),
        (b":authority", b"user@test"),
    ];
    for (name, value) in lines {
        let upstream = Upstream::obliging();
        let what = format!(
            "{} {:?}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        );
        let mut fields = PSEUDO.to_vec();
        for field in &mut fields {
            if field.0 == *name {
                field.1 = value;
            }
        }
        send(&upstream, &fields, &what);
        assert!(
            upstream.requests().len() <= 1,
            "{what}: {:?}",
            upstream.requests()
        );
    }
}

/// A length that the frames do not keep.
#[test]
fn a_length_that_is_not_kept_is_refused() {
    for length in [b"4".as_slice(), b"6", b"-5", b"five", b"5, 5"] {
        let upstream = Upstream::obliging();
        let what = String::from_utf8_lossy(length).into_owned();
        let fields = [PSEUDO, &[(b"content-length".as_slice(), length)]].concat();
        let refused = send(&upstream, &fields, &what);
        assert!(
            refused || length == b"5, 5",
            "content-length {what} for 5 bytes was accepted"
        );
        assert!(
            upstream.requests().is_empty() || length == b"5, 5",
            "{what}"
        );
    }
    let upstream = Upstream::obliging();
    let two: &[(&[u8], &[u8])] = &[(b"content-length", b"5"), (b"content-length", b"6")];
    assert!(send(&upstream, &[PSEUDO, two].concat(), "two lengths"));
    assert!(upstream.requests().is_empty());
}

/// `:authority` and `host` that differ must not send a request to one tenant under the name of the other.
#[test]
fn two_hosts_do_not_divide() {
    let upstream = Upstream::obliging();
    let toml = format!(
        "[[gateway]]\nname = \"a\"\nhosts = [\"a.test\"]\nauth = \"none\"\n[[gateway]]\nname = \"b\"\nhosts = [\"b.test\"]\nauth = \"none\"\n[[service]]\nname = \"raw\"\ngateways = [\"a\"]\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
        upstream.url()
    );
    let gateway = Gateway::start(&toml);
    // `a` offers the path, `b` does not: `:authority` is what counts.
    for (authority, host, reaches) in [
        (b"a.test".as_slice(), b"b.test".as_slice(), true),
        (b"b.test", b"a.test", false),
    ] {
        let mut client = RawH2::connect(gateway.address());
        let fields: &[(&[u8], &[u8])] = &[
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/raw/x"),
            (b":authority", authority),
            (b"host", host),
        ];
        client.headers(1, fields, false);
        client.data(1, b"hello", true);
        let before = upstream.requests().len();
        let refused = client.outcome(1).is_none_or(|frame| frame.refuses());
        assert!(refused || reaches, "`host` decided over `:authority`");
        if refused {
            assert_eq!(upstream.requests().len(), before);
        } else {
            upstream.last().assert_unambiguous();
        }
    }
}
