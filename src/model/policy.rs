//! Policies: how an upstream picks one of its targets.

mod prompts;

use http::HeaderName;
use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, JsonTable, Node, Reading, json,
};
use tollgate_sdk::{document, text_in_document};

use prompts::Sglang;
pub use prompts::{CacheAware, PrefixHash, SglangCacheAware};

/// How a target is picked. Weights count in all of them.
#[derive(Clone, Debug, PartialEq)]
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
    /// The one that can answer soonest without computing again what another has cached.
    CacheAware(CacheAware),
    /// The same for all prompts that begin alike, as long as it is not overloaded.
    PrefixHash(PrefixHash),
    /// What SGLang's router does.
    SglangCacheAware(SglangCacheAware),
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
        /// The one that can answer soonest without computing again what another has cached.
        CacheAware = "cache_aware",
        /// The same for all prompts that begin alike, as long as it is not overloaded.
        PrefixHash = "prefix_hash",
        /// What SGLang's router does: a known beginning where it went last, unless the load differs too much.
        SglangCacheAware = "sglang_cache_aware",
    }
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
    with {
        /// For "cache_aware".
        cache_aware: CacheAware,
        /// For "prefix_hash".
        prefix_hash: PrefixHash,
        /// For "sglang_cache_aware".
        sglang: Sglang,
    }
}

/// Read from a table, or from its `name` alone.
impl FromNode for Policy {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_none() {
            return match PolicyName::read(node, at, r)? {
                PolicyName::ConsistentHash => {
                    report_no_key(node, at, r);
                    None
                }
                name => Some(with_defaults(name)),
            };
        }
        let table = <PolicyTable as Document>::read(node, at, r)?;
        refuse_others(table.name, node, at, r);
        let policy = match (table.name, table.key) {
            (PolicyName::ConsistentHash, Some(key)) => Self::ConsistentHash(key),
            (PolicyName::ConsistentHash, None) => {
                // A key that was refused was reported when it was read.
                if node.entry("key").is_none() {
                    report_no_key(node, at, r);
                }
                return None;
            }
            (PolicyName::CacheAware, _) => Self::CacheAware(table.cache_aware),
            (PolicyName::PrefixHash, _) => Self::PrefixHash(table.prefix_hash),
            (PolicyName::SglangCacheAware, _) => Self::SglangCacheAware(SglangCacheAware {
                block: table.cache_aware.block,
                ..table.sglang.into()
            }),
            (name, _) => with_defaults(name),
        };
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
        let mut fields = match self {
            Self::ConsistentHash(key) => JsonTable::from_iter([("key".into(), key.value())]),
            Self::CacheAware(settings) => settings.value_fields(),
            Self::PrefixHash(settings) => settings.value_fields(),
            Self::SglangCacheAware(settings) => settings.fields_in_document(),
            _ => return self.name().value(),
        };
        fields.insert("name".into(), self.name().value());
        fields.into()
    }

    fn example() -> Json {
        PolicyName::example()
    }

    fn fields() -> Vec<Field> {
        <PolicyTable as Document>::fields()
    }
}

impl Policy {
    fn name(&self) -> PolicyName {
        match self {
            Self::RoundRobin => PolicyName::RoundRobin,
            Self::Random => PolicyName::Random,
            Self::LeastConnections => PolicyName::LeastConnections,
            Self::PowerOfTwo => PolicyName::PowerOfTwo,
            Self::ConsistentHash(_) => PolicyName::ConsistentHash,
            Self::CacheAware(_) => PolicyName::CacheAware,
            Self::PrefixHash(_) => PolicyName::PrefixHash,
            Self::SglangCacheAware(_) => PolicyName::SglangCacheAware,
        }
    }
}

/// The policy of this name with nothing else said; of `consistent_hash`, which needs more, the nearest.
fn with_defaults(name: PolicyName) -> Policy {
    match name {
        PolicyName::RoundRobin => Policy::RoundRobin,
        PolicyName::Random => Policy::Random,
        PolicyName::LeastConnections => Policy::LeastConnections,
        PolicyName::PowerOfTwo => Policy::PowerOfTwo,
        PolicyName::ConsistentHash => Policy::ConsistentHash(HashKey::Key),
        PolicyName::CacheAware => Policy::CacheAware(CacheAware::default()),
        PolicyName::PrefixHash => Policy::PrefixHash(PrefixHash::default()),
        PolicyName::SglangCacheAware => Policy::SglangCacheAware(SglangCacheAware::default()),
    }
}

/// Refuses the fields of other policies.
fn refuse_others(name: PolicyName, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let own: Vec<&str> = match name {
        PolicyName::ConsistentHash => vec!["key"],
        PolicyName::CacheAware => <CacheAware as Document>::names(),
        PolicyName::PrefixHash => <PrefixHash as Document>::names(),
        PolicyName::SglangCacheAware => {
            let mut names = <Sglang as Document>::names();
            names.push("block");
            names
        }
        _ => Vec::new(),
    };
    for field in <PolicyTable as Document>::names() {
        let Some(given) = node.entry(field) else {
            continue;
        };
        if field == "name" || own.contains(&field) {
            continue;
        }
        let owner = match field {
            "key" => "consistent_hash",
            _ if <CacheAware as Document>::names().contains(&field) => "cache_aware",
            _ if <PrefixHash as Document>::names().contains(&field) => "prefix_hash",
            _ => "sglang_cache_aware",
        };
        let help = format!(
            "take it out, or write: {}",
            r.format.field("name", &json!(owner))
        );
        let message = match field {
            "key" => "a key is only for consistent_hash".to_owned(),
            _ => format!("`{field}` is only for {owner}"),
        };
        r.error(given.span, &at.field(field), message, help);
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
