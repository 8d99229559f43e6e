//! Policies: how an upstream picks one of its targets.

use http::HeaderName;
use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, Node, Reading, json,
};
use tollgate_sdk::{document, text_in_document};

/// How a target is picked. Weights count in all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests in flight.
    LeastConnections,
    /// The better of two taken at random.
    PowerOfTwo,
    /// The same for all requests with the same key, as long as it is not overloaded.
    ConsistentHash(HashKey),
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The value of this header.
    Header(HeaderName),
    /// The client's credential: its `Authorization` or `x-api-key`.
    Key,
    /// The client's address.
    Ip,
    /// The value of the cookie of this name.
    Cookie(String),
}

document! {
    /// How a target is picked.
    enum PolicyName {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// Any.
        Random = "random",
        /// The one with the fewest requests in flight.
        LeastConnections = "least_connections",
        /// The better of two taken at random.
        PowerOfTwo = "power_of_two",
        /// The same for all requests with the same `key`, as long as it is not overloaded.
        ConsistentHash = "consistent_hash",
    }
    later ["cache_aware"]
}

document! {
    /// How a target is picked.
    struct PolicyTable (custom) {
        /// Which policy.
        #[example = "consistent_hash"]
        name: PolicyName,
        /// What is hashed, for "consistent_hash" alone: "header:NAME", "key" (the client's API key), "ip" or "cookie:NAME".
        #[example = "header:X-Session"]
        key: Option<HashKey>,
    }
}

/// Read from a table, or from its `name` alone.
impl FromNode for Policy {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let (name, key) = if node.as_table().is_some() {
            let table = <PolicyTable as Document>::read(node, at, r)?;
            (table.name, table.key)
        } else {
            (PolicyName::read(node, at, r)?, None)
        };
        let policy = match (name, key) {
            (PolicyName::ConsistentHash, Some(key)) => return Some(Self::ConsistentHash(key)),
            (PolicyName::ConsistentHash, None) => {
                // A key that was refused was reported when it was read.
                if node.entry("key").is_none() {
                    report_no_key(node, at, r);
                }
                return None;
            }
            (PolicyName::RoundRobin, _) => Self::RoundRobin,
            (PolicyName::Random, _) => Self::Random,
            (PolicyName::LeastConnections, _) => Self::LeastConnections,
            (PolicyName::PowerOfTwo, _) => Self::PowerOfTwo,
        };
        if let Some(given) = node.entry("key") {
            let help = format!(
                "take it out, or write: {}",
                r.format.field("name", &json!("consistent_hash"))
            );
            let message = "a key is only for consistent_hash";
            r.error(given.span, &at.field("key"), message, help);
        }
        Some(policy)
    }

    fn schema() -> Json {
        let mut schema = PolicyName::schema();
        if let Some(forms) = schema.pointer_mut("/anyOf").and_then(Json::as_array_mut) {
            forms.push(<PolicyTable as Document>::schema());
        }
        schema
    }

    fn value(&self) -> Json {
        let name = match self {
            Self::RoundRobin => PolicyName::RoundRobin,
            Self::Random => PolicyName::Random,
            Self::LeastConnections => PolicyName::LeastConnections,
            Self::PowerOfTwo => PolicyName::PowerOfTwo,
            Self::ConsistentHash(key) => {
                let (name, key) = (PolicyName::ConsistentHash, Some(key.clone()));
                return PolicyTable { name, key }.value_fields().into();
            }
        };
        name.value()
    }

    fn example() -> Json {
        PolicyName::example()
    }

    fn fields() -> Vec<Field> {
        <PolicyTable as Document>::fields()
    }
}

fn report_no_key(node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let key = r.format.field("key", &HashKey::example());
    let help = if node.as_table().is_some() {
        format!("add: {key} (or {OTHER_KEYS})")
    } else {
        let name = r.format.field("name", &json!("consistent_hash"));
        format!("write a table: {{ {name}, {key} }} (or {OTHER_KEYS})")
    };
    let message = "consistent_hash needs to know what to hash";
    r.error(node.span, at, message, help);
}

const OTHER_KEYS: &str = "\"key\", \"ip\", \"cookie:NAME\"";
const KEYS: &str = "write \"header:X-Session\", \"key\", \"ip\" or \"cookie:NAME\"";

impl FromText for HashKey {
    const EXPECTED: &'static str = "what to hash";
    const EXAMPLE: &'static str = "header:X-Session";
    const PATTERN: Option<&'static str> =
        Some("^(key|ip|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let (form, name) = match text.split_once(':') {
            Some((form, name)) => (form, Some(name)),
            None => (text, None),
        };
        match (form, name) {
            ("key", None) => Ok(Self::Key),
            ("ip", None) => Ok(Self::Ip),
            ("header" | "cookie", None | Some("")) => {
                Err(Invalid::new(format!("the {form}'s name is missing"))
                    .help(format!("write its name: \"{form}:X-Session\"")))
            }
            ("header", Some(name)) => HeaderName::from_text(name).map(Self::Header),
            // A cookie's name is a token, as a header's is, but its case counts.
            ("cookie", Some(name)) => match HeaderName::from_text(name) {
                Ok(_) => Ok(Self::Cookie(name.into())),
                Err(_) => Err(Invalid::new("not a cookie's name")
                    .help("letters, digits and hyphens, for example \"cookie:session\"")),
            },
            _ => Err(Invalid::new("not something that can be hashed").help(KEYS)),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Header(name) => format!("header:{name}"),
            Self::Key => "key".into(),
            Self::Ip => "ip".into(),
            Self::Cookie(name) => format!("cookie:{name}"),
        }
    }
}

text_in_document!(HashKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printed_as_they_are_typed() {
        for typed in ["key", "ip", "header:x-session", "cookie:Session"] {
            let key = HashKey::from_text(typed);
            assert_eq!(key.map(|key| key.to_text()).as_deref(), Ok(typed));
        }
        let session = HeaderName::from_static("x-session");
        assert_eq!(
            HashKey::from_text("header:X-Session"),
            Ok(HashKey::Header(session))
        );
    }

    #[test]
    fn what_cannot_be_hashed_is_refused() {
        for typed in [
            "",
            "X-Session",
            "header",
            "header:",
            "header:a b",
            "cookie:",
            "cookie:a=b",
            "key:",
            "ip:1",
            "IP",
            "body",
        ] {
            assert!(HashKey::from_text(typed).is_err(), "{typed}");
        }
    }
}
