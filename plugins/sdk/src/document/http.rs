//! HTTP's and the network's own words as parts of documents.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::{At, FromKey, FromNode, FromText, Invalid, Key, Node, Reading};

impl FromText for HeaderName {
    const EXPECTED: &'static str = "a header name";
    const EXAMPLE: &'static str = "X-Name";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        Self::try_from(text).map_err(|_| {
            Invalid::new("not a header name")
                .help("letters, digits and hyphens, for example \"X-Name\"")
        })
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

impl FromKey for HeaderName {
    fn read_key(key: &Key, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match Self::from_text(&key.text) {
            Ok(name) => Some(name),
            Err(invalid) => {
                r.error(key.span, at, invalid.message, invalid.help);
                None
            }
        }
    }

    fn key(&self) -> String {
        self.as_str().to_owned()
    }

    fn example_key() -> &'static str {
        "X-Name"
    }
}

/// Treated as a secret: headers often carry credentials.
impl FromNode for HeaderValue {
    const SECRET: bool = true;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        r.mask(node.span);
        let Some(text) = node.as_str() else {
            let help = format!(
                "for example: {}",
                r.format
                    .field(at.name().unwrap_or("X-Name"), &Self::example())
            );
            r.error(node.span, at, "expected text", help);
            return None;
        };
        let Ok(mut value) = Self::try_from(text) else {
            let help = "line breaks and control characters are not allowed";
            r.error(node.span, at, "not a header value", help);
            return None;
        };
        value.set_sensitive(true);
        Some(value)
    }

    fn schema() -> Json {
        String::schema()
    }

    fn value(&self) -> Json {
        json!("***")
    }

    fn example() -> Json {
        json!("value")
    }
}

impl FromText for Method {
    const EXPECTED: &'static str = "a method";
    const EXAMPLE: &'static str = "POST";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z]+$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("not a method").help("for example \"GET\" or \"POST\"");
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(refused());
        }
        Self::try_from(text.to_ascii_uppercase().as_str()).map_err(|_| refused())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl FromText for IpNet {
    const EXPECTED: &'static str = "an address or a range of addresses";
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let single = text.parse::<IpAddr>().map(Self::from);
        single.or_else(|_| text.parse()).map_err(|_| {
            let help =
                "write an address, \"192.0.2.7\", or a range, \"10.0.0.0/8\" or \"2001:db8::/32\"";
            Invalid::new("not an address or a range of addresses").help(help)
        })
    }

    fn to_text(&self) -> String {
        if self.prefix_len() == self.max_prefix_len() {
            self.addr().to_string()
        } else {
            self.to_string()
        }
    }
}

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "an address with its port";
    const EXAMPLE: &'static str = "127.0.0.1:8080";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let every = text
            .strip_prefix(':')
            .and_then(|port| port.parse::<u16>().ok());
        if let Some(port) = every {
            return Ok(Self::from((Ipv4Addr::UNSPECIFIED, port)));
        }
        text.parse().map_err(|_| {
            let help =
                "write \"127.0.0.1:8080\", \"[::1]:8080\", or \":8080\" for every IPv4 interface";
            Invalid::new(if text.parse::<IpAddr>().is_ok() {
                "the port is missing"
            } else {
                "not an IP address with its port"
            })
            .help(help)
        })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

crate::text_in_document!(HeaderName, Method, IpNet, SocketAddr);
