//! Origins as a configuration names them.
//!
//! An origin is a scheme, a host and perhaps a port, and compared as a whole (RFC 6454): nothing here matches a part of a label, so
//! that `https://*.example.com` is not met by `https://evil-example.com`.

use tollgate_sdk::document::{FromText, Invalid};
use tollgate_sdk::text_in_document;

/// Which origins are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// All.
    Any,
    /// This one, in small letters, without the scheme's own port.
    Exact(String),
    /// Every host below one.
    Below {
        /// Up to the host: `https://`.
        scheme: String,
        /// From the dot before it, with the port: `.example.com:8443`.
        rest: String,
    },
}

impl OriginPattern {
    /// Whether a request's `Origin` is meant.
    pub(super) fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below { scheme, rest } => {
                let Some((start, label)) = origin.split_at_checked(scheme.len()) else {
                    return false;
                };
                let Some(cut) = label.len().checked_sub(rest.len()) else {
                    return false;
                };
                let Some((label, end)) = label.split_at_checked(cut) else {
                    return false;
                };
                start.eq_ignore_ascii_case(scheme.as_bytes())
                    && end.eq_ignore_ascii_case(rest.as_bytes())
                    && is_host(label)
            }
        }
    }
}

/// Whether these are labels with dots between them.
fn is_host(text: &[u8]) -> bool {
    let label = |label: &[u8]| {
        let of_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.iter().all(of_host)
    };
    text.split(|byte| *byte == b'.').all(label)
}

const HELP: &str =
    "write \"https://app.example.com\", \"https://*.example.com\", or \"*\" for every origin";

impl FromText for OriginPattern {
    const EXPECTED: &'static str = "an origin";
    const EXAMPLE: &'static str = "https://app.example.com";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let text = text.to_ascii_lowercase();
        // Pages in sandboxes and local files have this one.
        if text == "null" {
            return Ok(Self::Exact(text));
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        let refused = |why: &str| Err(Invalid::new(why).help(HELP));
        let Some((scheme, authority)) = text.split_once("://") else {
            return refused("the scheme is missing");
        };
        let own_port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "://",
        };
        let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if scheme.is_empty() || !scheme.chars().all(of_scheme) {
            return refused("not a scheme before ://");
        }
        if authority.contains(['/', '?', '#', '@']) {
            return refused(
                "an origin is a scheme, a host and perhaps a port, and nothing after it",
            );
        }
        let authority = authority.strip_suffix(own_port).unwrap_or(authority);
        let (below, named) = match authority.strip_prefix("*.") {
            Some(named) => (true, named),
            None => (false, authority),
        };
        let host = match named.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => named,
        };
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if !address && !is_host(host.as_bytes()) {
            return refused("not a host");
        }
        Ok(match below {
            true => Self::Below {
                scheme: format!("{scheme}://"),
                rest: format!(".{named}"),
            },
            false => Self::Exact(format!("{scheme}://{named}")),
        })
    }

    fn to_text(&self) -> String {
        match self {
            Self::Any => "*".into(),
            Self::Exact(origin) => origin.clone(),
            Self::Below { scheme, rest } => format!("{scheme}*{rest}"),
        }
    }
}

text_in_document!(OriginPattern);
