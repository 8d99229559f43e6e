//! Targets: single addresses requests are sent to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, Node, Reading, json,
};
use tollgate_sdk::{document, text_in_document};

use super::pattern::{check_path, is_host};

document! {
    /// One address requests are sent to.
    pub struct Target (custom) {
        /// Where it is: "http://host:port", "https://…", "h2c://…" or "unix:/path"; a path goes before the request's.
        url: TargetUrl,
        /// What it is called among the targets of its upstream; without a word, its host and port.
        #[example = "gpu-1"]
        id: Option<TargetId>,
        /// Its part of the traffic beside the other targets.
        #[range(1..=1000000)]
        weight: u32 = 1,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// What it does, where its upstream has `disaggregation`.
        role: Role = Role::Both,
        /// The port at which its KV is asked for, if it prefills for "sglang", "vllm-mooncake" or "vllm-kvt".
        #[example = 8998]
        #[range(1..=65535)]
        bootstrap_port: Option<u16>,
        /// How many requests it may have at once, if not decided by the upstream.
        #[example = 64]
        #[range(1..=1000000)]
        max_in_flight: Option<u32>,
    }
}

document! {
    /// What a target does.
    pub enum Role {
        /// Prefill, decode, and requests as a whole.
        Both = "both",
        /// It computes prompts.
        Prefill = "prefill",
        /// It produces tokens.
        Decode = "decode",
    }
}

/// Read from a table, or from its `url` alone.
impl FromNode for Target {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some() {
            return <Self as Document>::read(node, at, r);
        }
        TargetUrl::read(node, at, r).map(Self::new)
    }

    fn schema() -> Json {
        json!({"anyOf": [TargetUrl::schema(), <Self as Document>::schema()]})
    }

    fn value(&self) -> Json {
        self.value_fields().into()
    }

    fn example() -> Json {
        TargetUrl::example()
    }

    fn fields() -> Vec<Field> {
        <Self as Document>::fields()
    }
}

impl Target {
    /// A target that is nothing but its URL.
    pub fn new(url: TargetUrl) -> Self {
        Self {
            url,
            id: None,
            weight: 1,
            labels: BTreeMap::new(),
            role: Role::Both,
            bootstrap_port: None,
            max_in_flight: None,
        }
    }
}

/// What a target is called: `^[A-Za-z0-9._:\[\]-]{1,128}$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetId(String);

impl TargetId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a target is called that has no name: its host and port, or the path of its socket.
    pub fn of(url: &TargetUrl) -> TargetId {
        let text = match url.scheme {
            Scheme::Unix => url.path.clone(),
            _ => format!("{}:{}", url.host, url.port),
        };
        let text = text.trim_start_matches('/').chars();
        let text = text.map(|c| if Self::allows(c) { c } else { '-' });
        TargetId(text.take(128).collect())
    }

    fn allows(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '[' | ']' | '-')
    }
}

impl FromText for TargetId {
    const EXPECTED: &'static str = "an id";
    const EXAMPLE: &'static str = "gpu-1";
    const PATTERN: Option<&'static str> = Some(r"^[A-Za-z0-9._:\[\]-]{1,128}$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match (1..=128).contains(&text.len()) && text.chars().all(Self::allows) {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new("not an id")
                .help("letters, digits and . _ : - [ ] only, up to 128, for example \"gpu-1\"")),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Where a target is. Printed back in its shortest form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetUrl {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Its host; an empty name for a unix socket.
    pub host: Host,
    /// Its port; 0 for a unix socket.
    pub port: u16,
    /// What goes before the request's path, without a slash at the end; for a unix socket, the socket's path.
    pub path: String,
}

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/1.1 over a unix socket.
    Unix,
}

/// The host of a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name to resolve, in lower case.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Unix => "unix",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https => 443,
            Self::Unix => 0,
        }
    }
}

impl TargetUrl {
    /// Whether it is a unix socket: there is no name to resolve.
    pub fn is_local(&self) -> bool {
        self.scheme == Scheme::Unix
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            host,
            port,
            path,
        } = self;
        match scheme {
            Scheme::Unix => write!(f, "unix:{path}"),
            scheme if *port == scheme.default_port() => {
                write!(f, "{}://{host}{path}", scheme.as_str())
            }
            scheme => write!(f, "{}://{host}:{port}{path}", scheme.as_str()),
        }
    }
}

const FORMS: &str =
    "write \"http://127.0.0.1:8000\", \"https://host/path\", \"h2c://host:port\" or \"unix:/path\"";

impl FromText for TargetUrl {
    const EXPECTED: &'static str = "a URL";
    const EXAMPLE: &'static str = "http://127.0.0.1:8000";
    const PATTERN: Option<&'static str> = Some("^(https?://|h2c://|unix:/)");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            // unix:///path is the same with an empty authority.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') || path.contains(['\0', '?', '#']) {
                return Err(
                    Invalid::new("the path of a unix socket begins with a slash")
                        .help("write \"unix:/path\""),
                );
            }
            return Ok(Self {
                scheme: Scheme::Unix,
                host: Host::Name(String::new()),
                port: 0,
                path: path.into(),
            });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match is_host(text.split([':', '/']).next().unwrap_or_default()) {
                true if !text.contains('@') => format!("write \"http://{text}\""),
                _ => FORMS.into(),
            };
            return Err(refuse(text, "the scheme is missing", help));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            "unix" => return Err(refuse(text, "a unix socket has no host", FORMS.into())),
            _ => return Err(refuse(text, "unknown scheme", FORMS.into())),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            let help =
                "take the user and password out; give the credential as `api_key` of an upstream";
            return Err(refuse(
                text,
                "a target's URL may not hold a credential",
                help.into(),
            ));
        }
        if path.contains(['?', '#']) {
            // A query is where some keep a key.
            let help =
                "leave out what begins with ? or #; give a credential as `api_key` of an upstream";
            let message = "a target's URL has neither query nor fragment";
            return Err(Invalid {
                secret: true,
                ..refuse(text, message, help.into())
            });
        }
        if !path.is_empty() {
            check_path(path)?;
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
            path: path.trim_end_matches('/').into(),
        })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

fn refuse(text: &str, message: &str, help: String) -> Invalid {
    Invalid {
        message: message.into(),
        help: Some(help),
        secret: text.contains('@'),
    }
}

fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), Invalid> {
    let bracketed = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((address, rest)) => {
            let address = address.parse::<Ipv6Addr>();
            let address = address.map_err(|_| {
                Invalid::new("not an IPv6 address between the brackets").help(FORMS)
            })?;
            (Host::Ip(address.into()), rest)
        }
        None => {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let host = match name.parse::<IpAddr>() {
                Ok(address) => Host::Ip(address),
                Err(_) if name.is_empty() => {
                    return Err(Invalid::new("the host is missing").help(FORMS));
                }
                Err(_) if is_host(name) => Host::Name(name.to_ascii_lowercase()),
                Err(_) => return Err(Invalid::new("not a host").help(FORMS)),
            };
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    match port.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) if port > 0 => Ok((host, Some(port))),
        _ if port.matches(':').count() > 1 => Err(Invalid::new("an IPv6 address needs brackets")
            .help("write \"http://[2001:db8::1]:8000\"")),
        _ => Err(Invalid::new("not a port").help("a number from 1 to 65535 after the host")),
    }
}

text_in_document!(TargetUrl, TargetId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_printed_back_in_their_shortest_form() {
        for (typed, printed) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("HTTP://Engine.Internal:80/", "http://engine.internal"),
            ("https://api.example.com/v1/", "https://api.example.com/v1"),
            (
                "https://api.example.com:8443",
                "https://api.example.com:8443",
            ),
            ("h2c://[2001:db8::1]:50051", "h2c://[2001:db8::1]:50051"),
            ("h2c://engine", "h2c://engine"),
            ("unix:/run/engine.sock", "unix:/run/engine.sock"),
            ("unix:///run/engine.sock", "unix:/run/engine.sock"),
        ] {
            let url = TargetUrl::from_text(typed);
            assert_eq!(
                url.as_ref().map(ToString::to_string).as_deref(),
                Ok(printed)
            );
            assert_eq!(TargetUrl::from_text(printed), url);
        }
    }

    #[test]
    fn urls_have_their_parts() {
        let url = TargetUrl::from_text("https://Api.example.com/v1/");
        let expected = TargetUrl {
            scheme: Scheme::Https,
            host: Host::Name("api.example.com".into()),
            port: 443,
            path: "/v1".into(),
        };
        assert_eq!(url, Ok(expected));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for typed in [
            "",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:b",
            "http://a:1:2",
            "//a",
            "a:80",
            "http//a",
            "http://[::1",
            "http://[::1]x",
            "http://a b",
            "http://a/\n",
            "http://a?x",
            "http://a#x",
            "http://é",
            "http://u@a",
            "unix:",
            "unix:a",
            "unix://a/b",
            "ws://a",
            "http://a/%zz\u{7f}",
        ] {
            assert!(TargetUrl::from_text(typed).is_err(), "{typed}");
        }
    }
}
