//! Rules: explicit routing, tried before the model's name.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, Method};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Document, Field, FromNode, Json, Node, Reading, json, suggest};

use super::{ModelPattern, Name, PartialRetry, PathPattern, Plugin, Rewrite};

document! {
    /// Explicit routing, tried before the model's name.
    pub struct Rule (checked) {
        /// Its name; by default `rule-1`, `rule-2`, … by position.
        #[example = "rule-1"]
        name: Name = Name::made(),
        /// What it is for.
        #[example = "old clients"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The gateway it belongs to.
        gateway: Name,
        /// Rules with a higher priority are tried first.
        priority: i32 = 0,
        /// The path: "/a", everything below it "/a/*", or with parameters "/users/{id}/posts".
        path: Option<PathPattern>,
        /// The methods; if empty, all. Another method on the same path gets 405.
        methods: Vec<Method> = Vec::new(),
        /// Headers that must be there: an exact value, or `{ regex = "…" }`.
        headers: Vec<(HeaderName, HeaderMatch)> = Vec::new(),
        /// The model's name; a trailing `*` matches any rest.
        model: Option<ModelPattern>,
        /// The services it leads to: names, or `{ name = "a", weight = 90 }`. If empty, the model decides.
        #[example = ["qwen"]]
        services: Vec<Weighted> = Vec::new(),
        /// Whether the matched prefix of the path is taken off before sending.
        strip_path: bool = false,
        /// The path sent instead; may use the parameters of `path`.
        rewrite: Option<Rewrite>,
        /// Whether the client's Host is sent upstream.
        preserve_host: bool = false,
        /// How long to wait, where it differs from the service's.
        timeouts: PartialTimeouts = PartialTimeouts::default(),
        /// Further tries, where they differ from the service's; "off" makes none.
        retry: PartialRetry = PartialRetry::default(),
        /// The services tried next, in order and before the service's own, when one cannot serve.
        #[example = ["provider"]]
        fallback: Vec<Name> = Vec::new(),
        /// The plugins that its requests pass after the service's, by priority.
        #[example = []]
        plugins: Vec<Plugin> = Vec::new(),
    }
}

impl Rule {
    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let Some(given) = node.entry("rewrite") else {
            return self;
        };
        // Of a path that was refused the parameters are not known.
        if node.entry("path").is_none() || self.path.is_some() {
            let known: Vec<_> = self.path.iter().flat_map(PathPattern::params).collect();
            for name in self.rewrite.iter().flat_map(Rewrite::params) {
                if !known.contains(&name) {
                    let message = format!("`path` has no parameter `{{{name}}}`");
                    let help = suggest(name, &known, "parameters");
                    r.error(given.span, &at.field("rewrite"), message, help);
                }
            }
        }
        if self.strip_path && self.rewrite.is_some() {
            let help = "keep one: `rewrite` gives the whole path, `strip_path` takes off the matched prefix";
            r.error(
                given.span,
                &at.field("rewrite"),
                "given beside `strip_path`",
                help,
            );
        }
        self
    }
}

document! {
    /// How long to wait, where it differs from the service's.
    pub struct PartialTimeouts (default) {
        /// For a connection.
        #[example = "2s"]
        connect: Option<Duration>,
        /// For the head of the response.
        #[example = "120s"]
        first_byte: Option<Duration>,
        /// Between parts of a body.
        #[example = "60s"]
        idle: Option<Duration>,
        /// For the whole.
        #[example = "10m"]
        total: Option<Duration>,
    }
}

document! {
    /// A service with its part of a rule's traffic.
    pub struct Weighted (custom) {
        /// The service.
        #[example = "qwen"]
        name: Name,
        /// Its part beside the rule's other services.
        #[range(0..=1000)]
        weight: u16 = 100,
    }
}

/// Read from a table, or from the service's name alone.
impl FromNode for Weighted {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some() {
            return <Self as Document>::read(node, at, r);
        }
        Name::read(node, at, r).map(|name| Self { name, weight: 100 })
    }

    fn schema() -> Json {
        json!({"anyOf": [Name::schema(), <Self as Document>::schema()]})
    }

    fn value(&self) -> Json {
        self.value_fields().into()
    }

    fn example() -> Json {
        json!("qwen")
    }

    fn fields() -> Vec<Field> {
        <Self as Document>::fields()
    }
}

/// What a header's value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderMatch {
    /// This.
    Exact(String),
    /// Something this regular expression finds a match in; known to compile.
    Regex(String),
}

/// Text is an exact value, a table holds a regular expression.
impl FromNode for HeaderMatch {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if let Some(text) = node.as_str() {
            return Some(Self::Exact(text.to_owned()));
        }
        let Some(entries) = node.as_table() else {
            r.expected(node, at, "text or { regex = \"…\" }", &json!("value"));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| key.text != "regex") {
            let help = suggest(&key.text, &["regex"], "fields");
            r.error(key.span, &at.field(&key.text), "unknown field", help);
        }
        let Some(given) = node.entry("regex") else {
            let help = format!("add: {}", r.format.field("regex", &json!("^v[0-9]+$")));
            r.error(node.span, at, "missing field `regex`", help);
            return None;
        };
        let at = at.field("regex");
        let source = String::read(given, &at, r)?;
        if let Err(error) = regex::Regex::new(&source) {
            // The crate's message draws the expression first; what is wrong comes last.
            let error = error.to_string();
            let reason = error
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            let message = format!("{}: not a regular expression: {reason}", given.quoted());
            let help = format!(
                "for example: {}",
                r.format.field("regex", &json!("^v[0-9]+$"))
            );
            r.error(given.span, &at, message, help);
            return None;
        }
        Some(Self::Regex(source))
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"regex": {"type": "string", "format": "regex"}},
                "required": ["regex"],
                "additionalProperties": false,
            },
        ]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Exact(text) => json!(text),
            Self::Regex(source) => json!({"regex": source}),
        }
    }

    fn example() -> Json {
        json!("value")
    }
}
