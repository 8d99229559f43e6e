//! How an entry of a chain becomes a plugin.

use std::sync::Arc;

use super::{Host, Plugin, Stage};
use crate::document::{At, Document, FromNode, Json, Node, Reading};

/// A plugin made from an entry's settings.
pub type Built = Arc<dyn Plugin>;

/// A kind of plugin: one line of the list of built-ins.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name in chains.
    pub name: &'static str,
    /// The stages it takes part in; the first is the one it is named by.
    pub stages: &'static [Stage],
    /// Whether its stages stand by themselves, so that an entry may pick one.
    pub apart: bool,
    /// Its settings' description.
    pub doc: fn() -> String,
    /// Its settings' JSON Schema.
    pub schema: fn() -> Json,
    /// Reads the settings and reports every mistake; from settings without one it can make the plugin.
    pub read: fn(&Node, &At<'_>, &mut Reading<'_>) -> Option<Settings>,
}

/// Settings that were read: ready to become a plugin.
pub struct Settings(Box<dyn Fn(&Host) -> Built + Send + Sync>);

impl Settings {
    /// Makes the plugin.
    pub fn build(&self, host: &Host) -> Built {
        (self.0)(host)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

/// Settings that know their plugin.
pub trait Builds: Document + FromNode + Clone + Send + Sync + 'static {
    /// Its name in chains.
    const NAME: &'static str;
    /// The stages it takes part in.
    const STAGES: &'static [Stage];
    /// Whether its stages stand by themselves: an entry that names one runs in that alone. Otherwise they belong together, and the plugin runs in
    /// all of them whichever is named.
    const APART: bool = false;

    /// Makes the plugin. What can be wrong with settings was found when they were read.
    fn build(&self, host: &Host) -> Built;
}

/// The kind whose settings are `S`.
pub const fn kind<S: Builds>() -> Kind {
    Kind {
        name: S::NAME,
        stages: S::STAGES,
        apart: S::APART,
        doc: S::doc,
        schema: <S as FromNode>::schema,
        read: |node, at, r| {
            let settings = <S as FromNode>::read(node, at, r)?;
            Some(Settings(Box::new(move |host| settings.build(host))))
        },
    }
}
