//! Entries of plugin chains.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tollgate_plugins::BUILTINS;
use tollgate_sdk::document;
use tollgate_sdk::document::{
    At, FromNode, Json, Node, Quoted, Reading, Span, Value, json, suggest,
};
use tollgate_sdk::plugin::{Kind, Settings, Stage};

document! {
    /// A plugin in a chain.
    pub struct Plugin (checked) {
        /// Which one.
        #[example = "headers"]
        name: String,
        /// Whether it runs.
        enabled: bool = true,
        /// The stage it runs in, where it can run in several that stand by themselves; without a word, in all of them.
        #[example = "pre_request"]
        stage: Option<Stage>,
        /// Lower ones run first.
        #[range(0..=999)]
        priority: u16 = 0,
        /// What becomes of the request when it breaks down or takes too long.
        on_error: OnError = OnError::Refuse,
        /// How long it may take.
        timeout: Duration = Duration::from_secs(5),
        /// Whether it runs at the same time as others of its priority that say so. Each of them sees the request as it was before them.
        parallel: bool = false,
        /// Its own settings.
        settings: PluginSettings = PluginSettings::default(),
    }
}

document! {
    /// What becomes of a request when a plugin breaks down.
    pub enum OnError {
        /// It is refused with 500.
        Refuse = "refuse",
        /// It goes on as if the plugin were not there.
        Skip = "skip",
    }
}

/// A plugin's settings: as they were written, and read.
#[derive(Clone, Default)]
pub struct PluginSettings {
    written: Json,
    /// What is written, without its secrets.
    shown: Json,
    read: Option<Arc<Settings>>,
}

impl PluginSettings {
    /// Lets the plugin read them. Which of them are secrets, only it knows.
    fn of(kind: &Kind, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let before = r.masked.len();
        let read = (kind.read)(node, at, r);
        Self {
            written: node.json(),
            shown: node.json_without(r.masked.get(before..).unwrap_or_default()),
            read: read.map(Arc::new),
        }
    }

    /// What the plugin is made from.
    pub fn settings(&self) -> Option<&Arc<Settings>> {
        self.read.as_ref()
    }
}

impl PartialEq for PluginSettings {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// They may hold a secret.
impl fmt::Debug for PluginSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PluginSettings(…)")
    }
}

impl FromNode for PluginSettings {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_none() {
            r.expected(node, at, "a table", &Self::example());
            return None;
        }
        // Until the plugin has read them, nobody knows what is to be hidden.
        Some(Self::default())
    }

    fn schema() -> Json {
        json!({"type": "object"})
    }

    fn value(&self) -> Json {
        match &self.shown {
            Json::Null => json!({}),
            shown => shown.clone(),
        }
    }

    fn example() -> Json {
        json!({})
    }
}

impl Plugin {
    /// An entry that nobody wrote as one: this plugin with these settings. `None` if they are wrong, which is reported.
    pub(super) fn with_settings(
        name: &str,
        settings: &Node,
        at: &At<'_>,
        r: &mut Reading<'_>,
    ) -> Option<Plugin> {
        let kind = BUILTINS.iter().find(|kind| kind.name == name)?;
        let settings = PluginSettings::of(kind, settings, at, r);
        settings.read.as_ref()?;
        Some(Plugin {
            name: name.to_owned(),
            enabled: true,
            stage: None,
            priority: 0,
            on_error: OnError::Refuse,
            timeout: Duration::from_secs(5),
            parallel: false,
            settings,
        })
    }

    /// What concerns several fields: the settings are the plugin's to read.
    fn check(mut self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let Some(kind) = find(&self.name, node, at, r) else {
            return self;
        };
        if let (Some(stage), Some(given)) = (self.stage, node.entry("stage"))
            && !kind.stages.contains(&stage)
        {
            let can = kind.stages.iter().map(|stage| stage.value().to_string());
            let can: Vec<String> = can.collect();
            let message = format!("{} does not run in that stage", self.name);
            let help = format!("it runs in: {}", can.join(", "));
            r.error(given.span, &at.field("stage"), message, help);
        }
        let nothing = Node::new(
            Span {
                end: node.span.start,
                ..node.span
            },
            Value::Table(Vec::new()),
        );
        let given = node.entry("settings").unwrap_or(&nothing);
        if given.as_table().is_some() {
            self.settings = PluginSettings::of(kind, given, &at.field("settings"), r);
        }
        self
    }
}

fn find(name: &str, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<&'static Kind> {
    let given = node.entry("name")?;
    let Some(kind) = BUILTINS.iter().find(|kind| kind.name == name) else {
        let names: Vec<&str> = BUILTINS.iter().map(|kind| kind.name).collect();
        let message = format!("there is no plugin {}", Quoted(name));
        let help = suggest(name, &names, "plugins");
        r.error(given.span, &at.field("name"), message, help);
        return None;
    };
    Some(kind)
}
