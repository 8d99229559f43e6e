//! What the tests of identities are made of: a service that plays a script and can be held back, and time that stands still.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::json;
use tokio::sync::Semaphore;
use tollgate_sdk::document::{FromNode, Node, Span, Value};
use tollgate_sdk::plugin::{CallError, Called};
use tollgate_sdk::quota::ManualClock;

use super::*;
use crate::calls::Calls;

pub(super) type Answered = Result<(u16, String), CallError>;
type Script = Box<dyn FnMut(&Request<Bytes>) -> Answered + Send>;

/// Plays the servers that are asked.
pub(super) struct Played {
    pub(super) asked: Mutex<Vec<Request<Bytes>>>,
    script: Mutex<Script>,
    /// Answers wait for a permit.
    pub(super) gate: Semaphore,
}

impl Played {
    pub(super) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(super) fn play(&self, script: impl FnMut(&Request<Bytes>) -> Answered + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }
}

struct Stage(Arc<Played>);

impl Http for Stage {
    fn call(&self, request: Request<Bytes>, _: Duration, most: usize) -> Called {
        let played = self.0.clone();
        Box::pin(async move {
            played.asked.lock().unwrap().push(request.clone());
            played.gate.acquire().await.unwrap().forget();
            let (status, body) = (played.script.lock().unwrap())(&request)?;
            assert!(body.len() <= most);
            let answer = Response::builder().status(status);
            Ok(answer.body(body.into()).unwrap())
        })
    }
}

pub(super) struct World {
    pub(super) played: Arc<Played>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) outside: Outside,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new(script: impl FnMut(&Request<Bytes>) -> Answered + Send + 'static) -> World {
        let played = Arc::new(Played {
            asked: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            gate: Semaphore::new(100_000),
        });
        let clock = Arc::new(ManualClock::default());
        let outside = Outside {
            http: Arc::new(Stage(played.clone())),
            clock: clock.clone(),
            kept: Arc::default(),
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        World {
            played,
            clock,
            outside,
            runtime: builder.enable_all().build().unwrap(),
        }
    }

    /// What a request would get: from memory or, if need be, by asking.
    pub(super) fn try_token(
        &self,
        authority: &Authority,
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<Key>, Unusable> {
        self.runtime.block_on(async {
            match authority.known(token.as_bytes(), now) {
                Some(known) => known,
                None => authority.ask(token.as_bytes(), now).await,
            }
        })
    }

    /// Lets tasks in the background come to where they wait.
    pub(super) fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    }
}

fn node(value: &serde_json::Value) -> Node {
    let value = match value {
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(node).collect()),
        serde_json::Value::Object(entries) => {
            let key = |text: &String| tollgate_sdk::document::Key {
                span: Span::default(),
                text: text.clone(),
            };
            Value::Table(entries.iter().map(|(k, v)| (key(k), node(v))).collect())
        }
        other => panic!("no test writes {other}"),
    };
    Node::new(Span::default(), value)
}

/// The authority that a gateway with this `auth` has.
pub(super) fn authority(auth: serde_json::Value, outside: &Outside) -> Authority {
    let no_file = |_: &str| Err("there are no files here".to_owned());
    let format = tollgate_sdk::document::Format::Toml;
    let mut r = tollgate_sdk::document::Reading::new(format, &no_file);
    let auth = model::Auth::read(&node(&auth), &tollgate_sdk::document::At::ROOT, &mut r);
    assert!(r.problems.is_empty(), "{:?}", r.problems);
    Authority::of(&auth.unwrap(), [], outside).unwrap()
}

/// A server that answers each request of each connection with what is made of its head and body.
fn serve(answer: fn(&str, &str) -> (u16, &'static str)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut read = Vec::new();
            let mut byte = [0];
            while !read.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                read.push(byte[0]);
            }
            let head = String::from_utf8(read).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            let (status, text) = answer(&head, std::str::from_utf8(&body).unwrap());
            let length = text.len();
            let reply = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
            );
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn a_service_is_asked_over_the_network_as_its_users_ask_it() {
    let address = serve(|head, body| {
        assert!(head.starts_with("GET /me?x=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(body, "");
        match head.contains("authorization: Bearer good\r\n") {
            true => (200, r#"{"username": "ann", "services": ["qwen"]}"#),
            false => (403, "no"),
        }
    });
    let mut world = World::new(|_| Err(CallError::Connect));
    world.outside.http = Arc::new(Calls::new());
    let auth = json!({"type": "http", "url": format!("http://{address}/me?x=1"), "timeout": "20s"});
    let authority = authority(auth, &world.outside);
    let key = world
        .try_token(&authority, "good", SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(&*key.principal.name, "ann");
    assert_eq!(*key.principal.id, *format!("http:{address}:ann"));
    assert!(key.opens("qwen") && !key.opens("llama"));
    let bad = world.try_token(&authority, "bad", SystemTime::UNIX_EPOCH);
    assert_eq!(bad.unwrap_err(), Unusable::Unknown);
}

#[test]
fn a_service_is_asked_over_the_network_as_rfc_7662_says() {
    let address = serve(|head, body| {
        assert!(head.starts_with("POST /introspect HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: Basic Zzpz\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-www-form-urlencoded\r\n"));
        match body {
            "token=a%2Bb%2F%3D" => (200, r#"{"active": true, "sub": "ann", "exp": 100}"#),
            _ => (200, r#"{"active": false}"#),
        }
    });
    let mut world = World::new(|_| Err(CallError::Connect));
    world.outside.http = Arc::new(Calls::new());
    let authority = authority(
        json!({
            "type": "http", "url": format!("http://{address}/introspect"), "method": "POST",
            "headers": {"Authorization": "Basic Zzpz"}, "timeout": "20s",
        }),
        &world.outside,
    );
    let key = world
        .try_token(&authority, "a+b/=", SystemTime::UNIX_EPOCH)
        .unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
    assert_eq!((&*key.principal.name, key.expires_at), ("ann", Some(end)));
    let bad = world.try_token(&authority, "other", SystemTime::UNIX_EPOCH);
    assert_eq!(bad.unwrap_err(), Unusable::Unknown);
}

#[test]
fn what_is_too_long_or_no_token_is_refused_before_any_work() {
    let world = World::new(|_| panic!("nobody is asked"));
    let long = "x".repeat(LONGEST_TOKEN + 1);
    for auth in [
        json!({"type": "http", "url": "http://id/"}),
        json!({"type": "jwt", "jwks_url": "http://id/"}),
    ] {
        let authority = authority(auth, &world.outside);
        for token in [&long, "", "two words", "line\r\nbreak", "é"] {
            let known = authority.known(token.as_bytes(), SystemTime::UNIX_EPOCH);
            assert_eq!(known.unwrap().unwrap_err(), Unusable::Unknown);
        }
    }
    assert_eq!(world.played.count(), 0);
}
