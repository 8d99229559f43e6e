//! The models of a service: listed by name, or those that its engines serve.

use tollgate_sdk::document::{At, FromNode, Json, Node, Reading, json};

use super::ModelPattern;

/// The word for the models that engines serve.
const AUTO: &str = "auto";

/// Which models a service answers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Models {
    /// These.
    Listed(Vec<ModelPattern>),
    /// Those that its upstream's engines list, adapters too, as they change.
    Auto,
}

impl Models {
    /// The names and prefixes that are listed.
    pub fn listed(&self) -> &[ModelPattern] {
        match self {
            Self::Listed(patterns) => patterns,
            Self::Auto => &[],
        }
    }

    /// Whether its engines say which they are.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Read from a list, or from the word "auto".
impl FromNode for Models {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match node.as_str() {
            Some(AUTO) => Some(Self::Auto),
            _ => FromNode::read(node, at, r).map(Self::Listed),
        }
    }

    fn schema() -> Json {
        let listed = <Vec<ModelPattern> as FromNode>::schema();
        json!({"anyOf": [{"const": AUTO}, listed]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Listed(patterns) => patterns.value(),
            Self::Auto => json!(AUTO),
        }
    }

    fn example() -> Json {
        <Vec<ModelPattern> as FromNode>::example()
    }
}
