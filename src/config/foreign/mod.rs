//! Documents of other systems, converted to native resources with a word on every field.
//!
//! One folder per system. Here is what they share: what a conversion gives, and which system a document belongs to. A conversion is
//! pure: a tree in, resources and notes out. Nothing of a document is dropped in silence, what cannot be honoured is refused, and no
//! note holds a secret. That the resources are sound is for their reader to say, as of those that were written by hand.

mod coreweave;
mod dstack;
mod fields;
mod llumnix;
mod name;
mod native;
mod roles;
mod text;
mod trustgate;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use tollgate_sdk::document::FromText;

use crate::model::TargetUrl;
pub use text::read;

/// The systems whose documents are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// dstack: `type: gateway` and `type: service`.
    Dstack,
    /// TrustGate: gateways, upstreams, services, rules and keys.
    TrustGate,
    /// CoreWeave Inference: gateways and deployments.
    CoreWeave,
    /// Llumnix: routes, as a list.
    Llumnix,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dstack => "dstack",
            Self::TrustGate => "TrustGate",
            Self::CoreWeave => "CoreWeave",
            Self::Llumnix => "Llumnix",
        })
    }
}

/// What became of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It means the same here, perhaps under another name.
    Taken,
    /// It has the same effect by other means.
    Adapted,
    /// It is kept for the record, or ignored without harm.
    Warned,
    /// It cannot be honoured, and without it the document would mean something else.
    Refused,
    /// It is not in the document; something was taken instead.
    Assumed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Taken => "taken",
            Self::Adapted => "adapted",
            Self::Warned => "warned",
            Self::Refused => "refused",
            Self::Assumed => "assumed",
        })
    }
}

/// What became of one field, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The field as in the foreign document: `replicas[0].count`; empty for the document as a whole; flags begin with `--`.
    pub path: String,
    /// What became of it.
    pub fate: Fate,
    /// What it is here, or why it is not.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path.as_str() {
            "" => "(document)",
            path => path,
        };
        write!(f, "{:<8} {path}: {}", self.fate, self.message)
    }
}

/// A native resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The name of its kind: `service`.
    pub kind: &'static str,
    /// Its fields, as in the configuration file; with `name`.
    pub body: Map<String, Value>,
}

/// What came of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The system it belongs to.
    pub dialect: Dialect,
    /// What it is here.
    pub resources: Vec<Resource>,
    /// What became of every field.
    pub notes: Vec<Note>,
}

impl Converted {
    /// Whether something was refused. Then the resources are not to be applied.
    pub fn is_refused(&self) -> bool {
        self.notes.iter().any(|note| note.fate == Fate::Refused)
    }
}

/// What is said beside a document, on the command line for instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The gateway that the document's services are for, if it does not say.
    pub gateway: Option<String>,
    /// The project of dstack that the document belongs to.
    pub project: Option<String>,
    /// Where the replicas of a dstack service are, or the engines of a CoreWeave deployment: its name, of dstack also `name/group`, and a URL. May hold
    /// several for one name. A URL of dstack's may be followed by what the replica does: `,role=prefill,bootstrap_port=8998`.
    pub targets: Vec<(String, String)>,
    /// Where the engines of Llumnix's internal pool are: URLs, each with what it does, if requests are split: `,role=decode`.
    pub local: Vec<String>,
    /// Flags of Llumnix's gateway by name: `route-policy`.
    pub flags: BTreeMap<String, String>,
    /// Whether the names of what belongs to TrustGate's gateway begin with the gateway's, `edge.chat`: elsewhere its tenants' names are apart.
    pub qualified: bool,
}

impl Options {
    /// The targets given for any of these names: where each was given, and its URL or what is wrong with it. The latter does not
    /// show the URL, which may hold a credential.
    fn targets_of(
        &self,
        names: &[String],
    ) -> impl Iterator<Item = (String, Result<String, String>)> {
        let given = { self.targets.iter() }.filter(|(name, _)| names.contains(name));
        given.map(|(name, url)| {
            let url = TargetUrl::from_text(url).map(|url| url.to_string());
            let url = url.map_err(|invalid| format!("not a target: {}", invalid.message));
            (format!("--target {name}"), url)
        })
    }
}

/// How one system's documents are known and converted.
struct System {
    dialect: Dialect,
    recognises: fn(&Value) -> bool,
    convert: fn(&Value, &Options) -> Converted,
}

/// In the order in which they are asked.
const SYSTEMS: [System; 4] = [
    System {
        dialect: Dialect::Dstack,
        recognises: dstack::recognises,
        convert: dstack::convert,
    },
    System {
        dialect: Dialect::Llumnix,
        recognises: llumnix::recognises,
        convert: llumnix::convert,
    },
    System {
        dialect: Dialect::CoreWeave,
        recognises: coreweave::recognises,
        convert: coreweave::convert,
    },
    System {
        dialect: Dialect::TrustGate,
        recognises: trustgate::recognises,
        convert: trustgate::convert,
    },
];

fn system(document: &Value) -> Option<&'static System> {
    SYSTEMS.iter().find(|system| (system.recognises)(document))
}

/// Which system's document this is, by its fields; `None` if it is not foreign.
pub fn recognise(document: &Value) -> Option<Dialect> {
    system(document).map(|system| system.dialect)
}

/// Converts a document; `None` if it is not foreign.
pub fn convert(document: &Value, options: &Options) -> Option<Converted> {
    system(document).map(|system| (system.convert)(document, options))
}

/// Converts a document that is known to be this system's, also where its fields do not tell.
pub fn convert_as(dialect: Dialect, document: &Value, options: &Options) -> Converted {
    match dialect {
        Dialect::Dstack => dstack::convert(document, options),
        Dialect::Llumnix => llumnix::convert(document, options),
        Dialect::CoreWeave => coreweave::convert(document, options),
        Dialect::TrustGate => trustgate::convert(document, options),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_known_by_their_fields() {
        for (document, dialect) in [
            (
                json!({"type": "gateway", "backend": "aws", "region": "eu"}),
                Some(Dialect::Dstack),
            ),
            (
                json!({"type": "service", "port": 8000}),
                Some(Dialect::Dstack),
            ),
            (
                json!({"type": "task", "commands": ["true"]}),
                Some(Dialect::Dstack),
            ),
            (
                json!([{"type": "service", "port": 8000}]),
                Some(Dialect::Dstack),
            ),
            (
                json!([{"base_url": "local", "weight": 1}]),
                Some(Dialect::Llumnix),
            ),
            (json!([{"prefix": "*"}]), Some(Dialect::Llumnix)),
            // Ours.
            (
                json!({"kind": "gateway", "name": "main", "hosts": ["*"]}),
                None,
            ),
            (
                json!({"type": "gateway", "name": "main", "hosts": ["*"]}),
                None,
            ),
            (
                json!({"kind": "service", "name": "a", "type": "openai", "targets": []}),
                None,
            ),
            (json!({"listener": [], "gateway": []}), None),
            // Nobody's.
            (json!([]), None),
            (json!({}), None),
            (json!("gateway"), None),
            (json!([1, null]), None),
            (json!(null), None),
        ] {
            assert_eq!(recognise(&document), dialect, "{document}");
            assert_eq!(
                convert(&document, &Options::default()).map(|c| c.dialect),
                dialect
            );
        }
    }

    /// Any value in any field: told, never a panic, and never a resource without a name.
    #[test]
    fn any_value_can_stand_anywhere() {
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(""),
            json!("\u{0}${{ x"),
            json!("a..b"),
            json!([]),
            json!([[]]),
            json!([{}]),
            json!({}),
            json!({"type": 1}),
            json!([null, 1, "x", {"name": {}}]),
            json!("9999999999999999999999w"),
        ];
        let service = json!({
            "type": "service", "name": "a", "port": 8000, "gateway": "g", "https": true, "auth": true, "strip_prefix": true, "model": "m",
            "rate_limits": [{"prefix": "/", "key": {"type": "ip_address"}, "rps": 1, "burst": 1}], "scaling": {"metric": "rps", "target": 1},
            "replicas": "0..3", "groups": [{"name": "x", "replicas": 1}], "probes": [{"type": "http", "headers": [{"name": "a", "value": "b"}]}],
            "router": {"type": "sglang"}, "env": {"A": "b"}, "image": "x",
        });
        let gateway = json!({
            "type": "gateway", "name": "g", "default": true, "backend": "aws", "region": "r", "instance_type": "t", "domain": "d.example",
            "public_ip": true, "certificate": {"type": "acm", "arn": "a"}, "replicas": 1, "tags": {"a": "b"}, "router": {"type": "sglang"},
        });
        let route = json!({"base_url": "http://a:1", "api_key": "k", "model": "m", "fallback": true, "weight": 1, "prefix": "p*"});
        let mut seen = 0;
        for (whole, list) in [(&service, false), (&gateway, false), (&route, true)] {
            for field in whole.as_object().unwrap().keys() {
                for value in &values {
                    let mut document = whole.clone();
                    document[field] = value.clone();
                    let document = if list {
                        json!([document, value])
                    } else {
                        document
                    };
                    let Some(converted) = convert(&document, &Options::default()) else {
                        continue;
                    };
                    seen += 1;
                    assert!(converted.notes.iter().all(|note| !note.message.is_empty()));
                    for resource in converted.resources {
                        assert!(resource.body["name"].is_string(), "{document}");
                    }
                }
            }
        }
        assert!(seen > 300, "{seen}");
    }
}
