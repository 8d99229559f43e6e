//! A service's own rate limits.

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromNode, Json, Node, Reading, json};

document! {
    /// So many requests a second, for the paths below a prefix.
    pub struct RateLimit (checked) {
        /// The paths it is for: those that begin so. The longest prefix wins.
        #[example = "/v1/chat"]
        prefix: String = "/".into(),
        /// By what requests are counted: "ip", "key", or `{ header = "X-User" }`. Who does not send the header is not limited.
        key: RateKey = RateKey::Ip,
        /// Requests a second, in the long run.
        #[example = 10.0]
        rps: f64,
        /// How many more may come at once after a rest.
        #[range(0..=1000000)]
        burst: u64 = 0,
    }
}

impl RateLimit {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        /// One a minute.
        const LEAST: f64 = 1.0 / 60.0;
        if let (true, Some(given)) = (self.rps < LEAST || self.rps > 1e9, node.entry("rps")) {
            let help = "from 0.0167, one a minute, to 1000000000";
            r.error(given.span, &at.field("rps"), "out of range", help);
        }
        if let (false, Some(given)) = (self.prefix.starts_with('/'), node.entry("prefix")) {
            let message = format!("{}: not a path", given.quoted());
            let help = "begin with a slash: \"/v1/chat\"";
            r.error(given.span, &at.field("prefix"), message, help);
        }
        self
    }
}

/// By what requests are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// The client's address.
    Ip,
    /// The API key; without one, the address.
    Key,
    /// A header's value.
    Header(HeaderName),
}

impl FromNode for RateKey {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if let Some(header) = node.entry("header") {
            return HeaderName::read(header, &at.field("header"), r).map(Self::Header);
        }
        match node.as_str() {
            Some("ip") => Some(Self::Ip),
            Some("key") => Some(Self::Key),
            _ => {
                let expected = "\"ip\", \"key\" or a header";
                r.expected(node, at, expected, &json!({"header": "X-User"}));
                None
            }
        }
    }

    fn schema() -> Json {
        let header = json!({"type": "object", "properties": {"header": {"type": "string"}}, "required": ["header"], "additionalProperties": false});
        json!({"anyOf": [{"enum": ["ip", "key"]}, header]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Ip => json!("ip"),
            Self::Key => json!("key"),
            Self::Header(name) => json!({"header": name.as_str()}),
        }
    }

    fn example() -> Json {
        json!("ip")
    }
}
