//! Addresses on the web that we ask ourselves.
//!
//! Invariant: one is `http` or `https`, has a host, and holds neither a credential nor a fragment, so that it may be shown.

use std::fmt;

use tollgate_sdk::document::{FromText, Invalid};
use tollgate_sdk::text_in_document;
use url::Url;

/// An address on the web, with its path and query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebUrl(Url);

impl WebUrl {
    /// The address as it is sent to.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its host, with the port unless that is the scheme's own.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromText for WebUrl {
    const EXPECTED: &'static str = "a URL";
    const EXAMPLE: &'static str = "https://id.example.com/path";
    const PATTERN: Option<&'static str> = Some("^[hH][tT][tT][pP][sS]?://");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        const FORM: &str = "write \"https://host/path\" or \"http://host:port/path\"";
        let refused = |message: &str, help: &str| Invalid {
            secret: text.contains('@'),
            ..Invalid::new(message).help(help)
        };
        let Ok(url) = Url::parse(text) else {
            return Err(refused("not a URL", FORM));
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("neither http nor https", FORM));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let help = "take the user and password out; give a credential among `headers`";
            return Err(refused("a URL may not hold a credential", help));
        }
        if url.fragment().is_some() {
            let help = "leave out what begins with #";
            return Err(refused("a fragment is never sent", help));
        }
        // What is sent is read by a stricter parser.
        match url.as_str().parse::<http::Uri>() {
            Ok(_) => Ok(Self(url)),
            Err(_) => Err(refused("not a URL that can be sent", FORM)),
        }
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

text_in_document!(WebUrl);
