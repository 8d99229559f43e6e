//! Names of resources.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use tollgate_sdk::document::{
    At, FromNode, FromText, Invalid, Json, Node, Reading, read_text, text_schema,
};

/// The name of a resource: `^[a-z0-9]([a-z0-9._-]{0,62})$`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a name.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let rest = |c: char| first(c) || matches!(c, '.' | '_' | '-');
        if text.len() <= 63 && text.starts_with(first) && text.chars().all(rest) {
            return Ok(Self(text.into()));
        }
        let help = match Self::from_any(text, "") {
            Some(name) if !text.is_empty() => format!(
                "lower-case letters, digits and . _ - only, up to 63, beginning with a letter or digit: \"{name}\""
            ),
            _ => "lower-case letters, digits and . _ - only, up to 63, beginning with a letter or digit".into(),
        };
        Err(Invalid::new("not a name").help(help))
    }

    /// The default of a name that is made by `config` before anybody sees it.
    pub(crate) fn made() -> Self {
        Self("".into())
    }

    /// The name of an unnamed resource: `rule-1`.
    pub(crate) fn numbered(kind: &str, number: usize) -> Self {
        Self(format!("{kind}-{number}").into())
    }

    /// A name as like `text` as the rules allow, after `prefix`; none if nothing of `text` is allowed.
    pub(crate) fn from_any(text: &str, prefix: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let text: String = text
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .collect();
        let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let name: String = prefix.chars().chain(text.chars()).take(63).collect();
        (!text.is_empty()).then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<Name> for Arc<str> {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl FromText for Name {
    const EXPECTED: &'static str = "a name";
    const EXAMPLE: &'static str = "main";
    const PATTERN: Option<&'static str> = Some("^[a-z0-9]([a-z0-9._-]{0,62})$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl FromNode for Name {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        read_text(node, at, r)
    }

    fn schema() -> Json {
        text_schema::<Self>()
    }

    fn value(&self) -> Json {
        match self.as_str() {
            "" => Json::Null,
            name => name.into(),
        }
    }

    fn example() -> Json {
        Self::EXAMPLE.into()
    }
}
