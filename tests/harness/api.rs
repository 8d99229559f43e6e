//! The admin API and the command line that speaks to it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Client, PROGRAM, Reply, leaks};

/// The admin API of a running gateway.
#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    token: Option<String>,
}

/// What one run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Any request with a body and a length.
pub(crate) fn request(method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let host = match fields.to_ascii_lowercase().contains("host:") {
        true => "",
        false => "host: test\r\n",
    };
    let head =
        format!("{method} {path} HTTP/1.1\r\n{host}{fields}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The header that presents a key or a token.
pub(crate) fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Api {
        Api {
            address,
            token: None,
        }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Api {
        self.token = Some(token.to_owned());
        self
    }

    /// With these header lines and no others; over a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Reply {
        let mut client = Client::connect(self.address);
        // Who is refused early may be told so before all was sent.
        let _ = client.try_send(&request(method, path, fields, body));
        client.reply()
    }

    /// With the token, if there is one.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let fields = self.token.as_deref().map(bearer).unwrap_or_default();
        self.send(method, path, &fields, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &Value::Null)
    }

    /// Makes a key; its secret.
    #[track_caller]
    pub(crate) fn create(&self, key: &Value) -> String {
        let reply = self.ask("POST", "/v1/keys", key);
        assert_eq!(reply.status, 201, "{}", reply.text());
        secret(&reply)
    }

    /// Rotates a key; its new secret.
    #[track_caller]
    pub(crate) fn rotate(&self, name: &str, grace: &str) -> String {
        let path = format!("/v1/keys/{name}/rotate");
        let reply = self.ask("POST", &path, &json!({"grace": grace}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        secret(&reply)
    }

    #[track_caller]
    pub(crate) fn revoke(&self, name: &str) {
        let reply = self.ask("DELETE", &format!("/v1/keys/{name}"), &Value::Null);
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    /// Runs a verb that speaks to this gateway.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        let server = format!("http://{}", self.address);
        let mut environment = vec![("TOLLGATE_SERVER", server.as_str())];
        environment.extend(self.token.as_deref().map(|token| ("TOLLGATE_TOKEN", token)));
        program(arguments, &environment, None)
    }
}

/// Runs the program to its end, with only these of its own variables.
pub(crate) fn program(
    arguments: &[&str],
    environment: &[(&str, &str)],
    folder: Option<&Path>,
) -> Ran {
    program_with(arguments, environment, folder, "")
}

/// The same with this on its standard input.
pub(crate) fn program_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
    folder: Option<&Path>,
    input: &str,
) -> Ran {
    let mut command = Command::new(PROGRAM);
    for name in ["TOLLGATE_SERVER", "TOLLGATE_TOKEN", "RUST_LOG"] {
        command.env_remove(name);
    }
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let environment = environment.iter().copied();
    let command = command.args(arguments).envs(environment);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Who is refused early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Ran {
    /// It did what it was to do; its standard output.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// It was refused or failed: nothing on standard output, and each of these on the other.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, told: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        for text in told {
            assert!(self.stderr.contains(text), "`{text}`: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

#[track_caller]
fn secret(reply: &Reply) -> String {
    let secret = reply.json()["secret"].as_str().unwrap().to_owned();
    leaks::learn(&secret);
    secret
}
