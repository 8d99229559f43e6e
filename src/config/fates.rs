//! What a change does, resource by resource and field by field.

use std::sync::Arc;

use tollgate_sdk::document::Json;

use super::kinds::ResourceKind;
use super::set::Resource;
use super::trees::{self, Difference};

/// What becomes of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Create,
    /// It says something else.
    Update,
    /// It says what it said.
    Unchanged,
    /// It is gone.
    Delete,
}

impl Action {
    /// The word for it: `create`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Unchanged => "unchanged",
            Self::Delete => "delete",
        }
    }
}

/// What becomes of one resource.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Arc<str>,
    /// What is done.
    pub action: Action,
    /// Its fields that differ, secrets as `***`.
    pub fields: Vec<Difference>,
}

pub(super) fn created(new: &Resource) -> Vec<Difference> {
    let typed = new.typed_fields();
    let mut fields = new.model.fields();
    fields.retain(|name, _| typed.get(name).is_some() && name != "name");
    let fields = fields.into_iter();
    fields
        .map(|(path, to)| Difference {
            path,
            from: Json::Null,
            to,
        })
        .collect()
}

pub(super) fn updated(old: &Resource, new: &Resource) -> Vec<Difference> {
    let mut found = trees::differences(&old.model.fields().into(), &new.model.fields().into());
    // What changed behind the stars is told without saying what.
    let before = trees::secrets_of(&old.typed, &old.secrets);
    let after = trees::secrets_of(&new.typed, &new.secrets);
    for (path, node) in after {
        let other = before.get(&path).is_some_and(|old| old.value != node.value);
        if other && !found.iter().any(|difference| difference.path == path) {
            found.push(Difference {
                path,
                from: trees::STARS.into(),
                to: trees::STARS.into(),
            });
        }
    }
    found
}
