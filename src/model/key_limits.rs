//! What a key may use: the settings of the plugins that count, given with the key instead of in a chain.

use tollgate_sdk::document::{
    At, FromNode, Json, Key as Field, Node, Quoted, Reading, Value, json, suggest,
};

use super::Plugin;

/// The plugins whose settings `limits` may hold.
const COUNTING: [&str; 3] = ["rate_limiter", "token_rate_limiter", "concurrency_limiter"];

/// Limits of one key, as the plugins that its requests pass before all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyLimits(pub Vec<Plugin>);

impl FromNode for KeyLimits {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let Some(entries) = node.as_table() else {
            r.expected(node, at, "a table", &Self::example());
            return None;
        };
        let named = |(key, _): &(Field, Node)| COUNTING.contains(&key.text.as_str());
        if !entries.iter().any(named) {
            return Self::requests_only(node, at, r);
        }
        let mut plugins = Vec::new();
        for (key, settings) in entries {
            if !COUNTING.contains(&key.text.as_str()) {
                let message = format!("there is no {}", Quoted(&key.text));
                let help = suggest(&key.text, &COUNTING, "limits");
                r.error(key.span, &at.field(&key.text), message, help);
                continue;
            }
            let at = at.field(&key.text);
            plugins.extend(Plugin::with_settings(&key.text, settings, &at, r));
        }
        Some(Self(plugins))
    }

    fn schema() -> Json {
        json!({"type": "object"})
    }

    fn value(&self) -> Json {
        let entries = self.0.iter();
        entries
            .map(|plugin| (plugin.name.clone(), plugin.settings.value()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn example() -> Json {
        json!({"global": {"limit": 100, "window": "1m"}})
    }
}

impl KeyLimits {
    /// The short way: what is written are the `limits` of `rate_limiter`.
    fn requests_only(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some_and(<[_]>::is_empty) {
            return Some(Self::default());
        }
        let limits = Field {
            span: node.span,
            text: "limits".into(),
        };
        let settings = Node::new(node.span, Value::Table(vec![(limits, node.clone())]));
        // The settings' only field is this one: a mistake is told where it was made.
        let above = at.parent().unwrap_or(&At::ROOT);
        let plugin = Plugin::with_settings("rate_limiter", &settings, above, r)?;
        Some(Self(vec![plugin]))
    }
}

/// The budget of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyBudget(pub Option<Plugin>);

impl FromNode for KeyBudget {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some_and(<[_]>::is_empty) {
            return Some(Self(None));
        }
        Some(Self(Some(Plugin::with_settings("budget", node, at, r)?)))
    }

    fn schema() -> Json {
        json!({"type": "object"})
    }

    fn value(&self) -> Json {
        match &self.0 {
            Some(plugin) => plugin.settings.value(),
            None => json!({}),
        }
    }

    fn example() -> Json {
        json!({"limit": 100.0, "per": "month"})
    }
}
