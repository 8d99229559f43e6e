//! Types that are written as text: one rule for reading, schema and help.

use serde_json::{Value as Json, json};

use super::{At, Node, Reading};

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong, without the text itself.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Whether the text may hold a credential and must not be shown.
    pub secret: bool,
}

impl Invalid {
    /// Refused because of `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            secret: false,
        }
    }

    /// With a way to mend it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A type that is written as text. [`text_in_document!`](crate::text_in_document) makes it readable.
pub trait FromText: Sized {
    /// What it is, with an article: "a duration".
    const EXPECTED: &'static str;

    /// A text that is accepted.
    const EXAMPLE: &'static str;

    /// A regular expression that every accepted text matches, for the schema.
    const PATTERN: Option<&'static str> = None;

    /// Reads the text.
    fn from_text(text: &str) -> Result<Self, Invalid>;

    /// Writes it.
    fn to_text(&self) -> String;

    /// Help when something other than text was given.
    fn help_for_other(_node: &Node) -> Option<String> {
        None
    }
}

/// Reads a text type, reporting with the node's place.
pub fn read_text<T: FromText>(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<T> {
    let Some(text) = node.as_str() else {
        match T::help_for_other(node) {
            None => r.expected(node, at, T::EXPECTED, &json!(T::EXAMPLE)),
            help => {
                let message = format!("expected {}, found {}", T::EXPECTED, node.found());
                r.error(node.span, at, message, help);
            }
        }
        return None;
    };
    match T::from_text(text) {
        Ok(read) => Some(read),
        Err(invalid) => {
            if invalid.secret {
                r.mask(node.span);
                r.error(node.span, at, invalid.message, invalid.help);
            } else {
                let message = format!("{}: {}", node.quoted(), invalid.message);
                r.error(node.span, at, message, invalid.help);
            }
            None
        }
    }
}

/// The schema of a text type.
pub fn text_schema<T: FromText>() -> Json {
    match T::PATTERN {
        Some(pattern) => json!({"type": "string", "pattern": format!(r"{pattern}|\$\{{")}),
        None => json!({"type": "string"}),
    }
}

/// Makes types that are [`FromText`](crate::document::FromText) readable from a document.
#[macro_export]
macro_rules! text_in_document {
    ($($ty:ty),* $(,)?) => {$(
        impl $crate::document::FromNode for $ty {
            fn read(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                r: &mut $crate::document::Reading<'_>,
            ) -> Option<Self> {
                $crate::document::read_text(node, at, r)
            }

            fn schema() -> $crate::document::Json {
                $crate::document::text_schema::<Self>()
            }

            fn value(&self) -> $crate::document::Json {
                $crate::document::Json::from($crate::document::FromText::to_text(self))
            }

            fn example() -> $crate::document::Json {
                $crate::document::Json::from(<Self as $crate::document::FromText>::EXAMPLE)
            }
        }
    )*};
}
