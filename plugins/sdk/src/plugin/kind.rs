//! How an entry of a chain becomes a plugin.

use std::sync::Arc;
use std::time::Duration;

use super::{Host, Plugin, Stage};
use crate::document::{At, Document, Field, FromNode, Json, Node, Reading};

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
    /// The fields of its settings.
    pub fields: fn() -> Vec<Field>,
    /// Its settings' JSON Schema.
    pub schema: fn() -> Json,
    /// Reads the settings and reports every mistake; from settings without one it can make the plugin.
    pub read: fn(&Node, &At<'_>, &mut Reading<'_>) -> Option<Settings>,
}

/// Settings that were read: ready to become a plugin.
pub struct Settings {
    build: Box<dyn Fn(&Host, Option<Stage>) -> Built + Send + Sync>,
    services: Vec<String>,
    patience: Option<Duration>,
}

impl Settings {
    /// Makes the plugin for an entry that names no stage.
    pub fn build(&self, host: &Host) -> Built {
        self.build_at(host, None)
    }

    /// Makes the plugin for an entry that may name its stage.
    pub fn build_at(&self, host: &Host, stage: Option<Stage>) -> Built {
        (self.build)(host, stage)
    }

    /// The services it names, which must exist.
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// How long it waits by its own settings: an entry's timeout must not end it earlier.
    pub fn patience(&self) -> Option<Duration> {
        self.patience
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

    /// Makes the plugin for an entry that names its stage. Only a plugin that does another thing in each stage cares.
    fn build_at(&self, host: &Host, _stage: Stage) -> Built {
        self.build(host)
    }

    /// The services it names, to be checked against those there are.
    fn services(&self) -> Vec<String> {
        Vec::new()
    }

    /// How long it may wait for others in one stage, if it does.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// The kind whose settings are `S`.
pub const fn kind<S: Builds>() -> Kind {
    Kind {
        name: S::NAME,
        stages: S::STAGES,
        apart: S::APART,
        doc: S::doc,
        fields: <S as FromNode>::fields,
        schema: <S as FromNode>::schema,
        read: |node, at, r| {
            let settings = <S as FromNode>::read(node, at, r)?;
            Some(Settings {
                services: settings.services(),
                patience: settings.patience(),
                build: Box::new(move |host, stage| match stage {
                    Some(stage) => settings.build_at(host, stage),
                    None => settings.build(host),
                }),
            })
        },
    }
}
