//! What a table says of each kind of thing: a head, and how a cell is made from the resource.
//!
//! A field that a resource does not have is at its default, which the kind's schema knows.

use serde_json::Value;

use super::kind::Kind;
use crate::model::KINDS;

/// One column.
pub(super) struct Column {
    pub(super) head: &'static str,
    /// When it is shown.
    pub(super) when: When,
    cell: fn(&Thing<'_>) -> String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Only if a row has something to say there, or with `-o wide`.
    Filled,
    /// Only with `-o wide`.
    Wide,
}

/// A resource or another thing, and what the gateway says of its kind.
struct Thing<'v> {
    value: &'v Value,
    schema: &'v Value,
}

/// Heads of columns whose cells are numbers.
pub(super) const NUMBERS: [&str; 6] = [
    "WEIGHT",
    "PRIORITY",
    "IN FLIGHT",
    "REVISION",
    "COOLING",
    "TARGETS",
];

const fn column(head: &'static str, when: When, cell: fn(&Thing<'_>) -> String) -> Column {
    Column { head, when, cell }
}

const NAME: Column = column("NAME", When::Always, |thing| thing.text("name"));
const FROM: Column = column("FROM", When::Wide, |thing| thing.text("managed_by"));
const REVISION: Column = column("REVISION", When::Wide, |thing| thing.text("revision"));
const FALLBACK: Column = column("FALLBACK", When::Wide, |thing| thing.list("fallback", "-"));

const GATEWAY: &[Column] = &[
    NAME,
    column("BACKEND", When::Filled, |thing| thing.label("backend")),
    column("REGION", When::Filled, |thing| thing.label("region")),
    column("HOSTS", When::Always, |thing| thing.hosts()),
    column("DOMAIN", When::Always, |thing| thing.text("domain")),
    column("DEFAULT", When::Always, |thing| {
        match thing.field("default") {
            Value::Bool(true) => "✓".to_owned(),
            _ => String::new(),
        }
    }),
    column("STATUS", When::Always, |thing| thing.text("status")),
    column("SERVICES", When::Always, |thing| {
        match thing.field("services") {
            Value::Array(services) => services.len().to_string(),
            other => shown(&other),
        }
    }),
    column("AUTH", When::Wide, |thing| thing.word("auth", "type")),
    column("ROUTING", When::Wide, |thing| thing.word("routing", "by")),
    FALLBACK,
    FROM,
    REVISION,
];

const SERVICE: &[Column] = &[
    NAME,
    column("TYPE", When::Always, |thing| thing.text("type")),
    column("MODELS", When::Always, |thing| thing.list("models", "-")),
    column("GATEWAYS", When::Always, |thing| {
        thing.list("gateways", "all")
    }),
    column("POOL", When::Always, |thing| {
        match thing.field("upstream") {
            Value::String(upstream) => upstream,
            _ => count(&thing.field("targets"), "target"),
        }
    }),
    column("WEIGHT", When::Always, |thing| thing.text("weight")),
    column("ALIAS", When::Wide, |thing| thing.text("model")),
    FALLBACK,
    column("PLUGINS", When::Wide, |thing| thing.list("plugins", "-")),
    FROM,
    REVISION,
];

const UPSTREAM: &[Column] = &[
    NAME,
    column("POLICY", When::Always, |thing| thing.word("policy", "name")),
    column("TARGETS", When::Always, |thing| {
        match thing.field("targets") {
            Value::Array(targets) => targets.len().to_string(),
            _ => "0".to_owned(),
        }
    }),
    column("HEALTH", When::Always, |thing| thing.word("health", "type")),
    column("URLS", When::Wide, |thing| thing.list("targets", "-")),
    column("ENGINE", When::Wide, |thing| thing.text("engine")),
    FROM,
    REVISION,
];

const RULE: &[Column] = &[
    NAME,
    column("GATEWAY", When::Always, |thing| thing.text("gateway")),
    column("PRIORITY", When::Always, |thing| thing.text("priority")),
    column("PATH", When::Always, |thing| thing.text("path")),
    column("METHODS", When::Always, |thing| {
        thing.list("methods", "all")
    }),
    column("MODEL", When::Always, |thing| thing.list("model", "-")),
    column("SERVICES", When::Always, |thing| {
        thing.list("services", "by model")
    }),
    FALLBACK,
    column("PLUGINS", When::Wide, |thing| thing.list("plugins", "-")),
    FROM,
    REVISION,
];

const KEY: &[Column] = &[
    NAME,
    column("GATEWAY", When::Always, |thing| thing.text("gateway")),
    column("ID", When::Always, |thing| thing.text("id")),
    column("MAY USE", When::Always, |thing| {
        let scopes = ["services", "models", "rules"].map(|scope| thing.list(scope, ""));
        let scopes: Vec<String> = scopes
            .into_iter()
            .filter(|scope| !scope.is_empty())
            .collect();
        match scopes.is_empty() {
            true => "everything".to_owned(),
            false => scopes.join(","),
        }
    }),
    column("ENDS", When::Always, |thing| thing.text("expires_at")),
    column("STATE", When::Always, |thing| match thing.field("active") {
        Value::Bool(false) => "off".to_owned(),
        _ => "active".to_owned(),
    }),
    column("FROM", When::Always, |thing| thing.text("managed_by")),
    REVISION,
];

const PLUGIN: &[Column] = &[
    NAME,
    column("OF", When::Always, |thing| thing.text("of")),
    column("STAGE", When::Always, |thing| thing.text("stage")),
    column("PRIORITY", When::Always, |thing| thing.text("priority")),
    column("STATE", When::Always, |thing| {
        match thing.field("enabled") {
            Value::Bool(false) => "off".to_owned(),
            _ => "active".to_owned(),
        }
    }),
    column("SETTINGS", When::Wide, |thing| thing.text("settings")),
];

const TARGET: &[Column] = &[
    column("UPSTREAM", When::Always, |thing| thing.text("upstream")),
    column("ID", When::Always, |thing| thing.text("id")),
    column("URL", When::Always, |thing| thing.text("url")),
    column("HEALTH", When::Always, |thing| thing.text("health")),
    column("BREAKER", When::Always, |thing| thing.text("breaker")),
    column("IN FLIGHT", When::Always, |thing| thing.text("in_flight")),
    column("WEIGHT", When::Always, |thing| thing.text("weight")),
    column("COOLING", When::Wide, |thing| {
        match thing.field("cooling_ms").as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(left) => format!("{}s", left.div_ceil(1000)),
        }
    }),
];

const CERTIFICATE: &[Column] = &[
    NAME,
    column("HOSTS", When::Always, |thing| thing.list("hosts", "-")),
    column("ENDS", When::Always, |thing| thing.text("expires_at")),
    column("ISSUER", When::Always, |thing| thing.text("issuer")),
    column("FROM", When::Always, |thing| thing.text("source")),
    column("ORDER", When::Filled, |thing| {
        let order = thing.field("order");
        let state = order.get("state").and_then(Value::as_str);
        state.unwrap_or("-").to_owned()
    }),
    column("REASON", When::Wide, |thing| {
        let order = thing.field("order");
        let reason = order.get("reason").and_then(Value::as_str);
        reason.unwrap_or("-").to_owned()
    }),
];

/// The columns of a kind with the cells of these things, as far as they are to be shown.
pub(super) fn cells(
    kind: Kind,
    things: &[Value],
    wide: bool,
) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let schema = { KINDS.iter() }.find(|known| known.name == kind.name());
    let schema = schema.map(|known| (known.schema)()).unwrap_or_default();
    let cell = |column: &Column, value| {
        let schema = &schema;
        (column.cell)(&Thing { value, schema })
    };
    let is_filled = |column: &Column| things.iter().any(|thing| cell(column, thing) != "-");
    let shown = { of(kind).iter() }.filter(|column| match column.when {
        When::Always => true,
        When::Filled => wide || is_filled(column),
        When::Wide => wide,
    });
    let shown: Vec<&Column> = shown.collect();
    let row = |thing| shown.iter().map(|column| cell(column, thing)).collect();
    let heads = shown.iter().map(|column| column.head).collect();
    (heads, things.iter().map(row).collect())
}

fn of(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Gateway => GATEWAY,
        Kind::Service => SERVICE,
        Kind::Upstream => UPSTREAM,
        Kind::Rule => RULE,
        Kind::Key => KEY,
        Kind::Plugin => PLUGIN,
        Kind::Target => TARGET,
        Kind::Certificate => CERTIFICATE,
    }
}

impl Thing<'_> {
    /// The field, or its default; null if there is neither.
    fn field(&self, name: &str) -> Value {
        let own = self.value.get(name).filter(|value| !value.is_null());
        let default = self.schema.pointer(&format!("/properties/{name}/default"));
        own.or(default).cloned().unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        shown(&self.field(name))
    }

    /// A field that is one word, or a table of which one field is the word.
    fn word(&self, name: &str, inner: &str) -> String {
        match self.field(name) {
            Value::Object(table) => shown(table.get(inner).unwrap_or(&Value::Null)),
            word => shown(&word),
        }
    }

    /// A label of this name; a conversion puts the other system's name and a dot before it.
    fn label(&self, name: &str) -> String {
        let labels = self.value.get("labels").and_then(Value::as_object);
        let is_meant = |label: &str| label.rsplit('.').next() == Some(name);
        let mut meant = labels
            .into_iter()
            .flatten()
            .filter(|(label, _)| is_meant(label));
        meant
            .next()
            .map_or_else(|| "-".to_owned(), |(_, value)| shown(value))
    }

    /// A list of texts, or of tables that have a name or a URL.
    fn list(&self, name: &str, none: &str) -> String {
        let texts: Vec<String> = match self.field(name) {
            Value::Array(items) => items.iter().map(shown_briefly).collect(),
            Value::Null => Vec::new(),
            one => vec![shown(&one)],
        };
        match texts.is_empty() {
            true => none.to_owned(),
            false => texts.join(","),
        }
    }

    /// The hosts as they are given, and the one that the domain makes.
    fn hosts(&self) -> String {
        let mut hosts = self.list("hosts", "");
        let part = |name: &str| self.value.get(name).and_then(Value::as_str);
        if let (Some(subdomain), Some(domain)) = (part("subdomain"), part("domain")) {
            let comma = if hosts.is_empty() { "" } else { "," };
            hosts += &format!("{comma}{subdomain}.{domain}");
        }
        match hosts.is_empty() {
            true => "-".to_owned(),
            false => hosts,
        }
    }
}

fn shown_briefly(item: &Value) -> String {
    let named = item.get("name").or_else(|| item.get("url"));
    shown(named.unwrap_or(item))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn count(list: &Value, what: &str) -> String {
    match list.as_array().map_or(0, Vec::len) {
        0 => "-".to_owned(),
        1 => format!("1 {what}"),
        several => format!("{several} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(kind: Kind, thing: Value, head: &str) -> Option<String> {
        let (heads, rows) = cells(kind, &[thing], true);
        let at = heads.iter().position(|known| *known == head)?;
        Some(rows[0][at].clone())
    }

    #[test]
    fn what_a_resource_leaves_out_is_at_its_default() {
        let bare = json!({"name": "a"});
        let service = |head| cell(Kind::Service, bare.clone(), head).unwrap();
        assert_eq!(
            (service("TYPE"), service("WEIGHT")),
            ("openai".into(), "100".into())
        );
        assert_eq!(service("GATEWAYS"), "all");
        let upstream = |head| cell(Kind::Upstream, bare.clone(), head).unwrap();
        assert_eq!(upstream("POLICY"), "least_connections");
        assert_eq!(
            cell(Kind::Gateway, bare.clone(), "AUTH").unwrap(),
            "api_key"
        );
        assert_eq!(cell(Kind::Key, bare, "MAY USE").unwrap(), "everything");
    }

    #[test]
    fn columns_without_content_are_left_out() {
        let plain = json!({"name": "a", "hosts": ["*"]});
        let labelled = json!({"name": "b", "labels": {"dstack.region": "eu"}, "subdomain": "b", "domain": "example.com"});
        let (heads, rows) = cells(Kind::Gateway, &[plain, labelled], false);
        assert_eq!(
            heads,
            [
                "NAME", "REGION", "HOSTS", "DOMAIN", "DEFAULT", "STATUS", "SERVICES"
            ]
        );
        assert_eq!(rows[0][..3], ["a", "-", "*"]);
        assert_eq!(rows[1][..4], ["b", "eu", "b.example.com", "example.com"]);
    }

    /// What a server of another version says is shown as far as it goes.
    #[test]
    fn nothing_in_a_resource_panics() {
        for kind in [
            Kind::Gateway,
            Kind::Service,
            Kind::Upstream,
            Kind::Rule,
            Kind::Key,
            Kind::Plugin,
            Kind::Target,
        ] {
            for value in [
                json!(null),
                json!([]),
                json!(7),
                json!({"name": {}, "hosts": 1, "plugins": [1, {}], "cooling_ms": -1}),
            ] {
                let (heads, rows) = cells(kind, &[value], true);
                assert_eq!(heads.len(), rows[0].len());
            }
        }
    }
}
