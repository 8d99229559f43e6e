//! Whom or what a request concerns: what limits count by.
//!
//! It owns where a subject is looked for and what a limit by it is called; what is counted is each plugin's own. Invariant: a request that does
//! not name a subject has none, and a limit by that subject does not concern it.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::HeaderName;

use super::{Host, Principal, Request};
use crate::document;
use crate::document::{At, Document, FromNode, Json, Node, Reading, json};
use crate::quota::{Limit, Rule, User};

/// What a limit counts by. In a document a word, or a table that names a header.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// What the client says it is by the header `X-Fingerprint`.
    Fingerprint,
    /// The client's address.
    Ip,
    /// The user: by the headers `X-User-ID`, `X-UserID` and `User-ID`, else by the body's field `user`.
    User,
    /// Who was authenticated.
    Key,
    /// The model asked for.
    Model,
    /// The value of this header.
    Header(HeaderName),
    /// Nothing: all together.
    All,
}

impl By {
    /// What a limit by it is called in settings, messages and identities.
    pub fn name(&self) -> &'static str {
        match self {
            By::Fingerprint => "per_fingerprint",
            By::Ip => "per_ip",
            By::User => "per_user",
            By::Key => "per_key",
            By::Model => "per_model",
            By::Header(_) => "per_header",
            By::All => "global",
        }
    }

    /// Whom it concerns, if that is known without a look at the request: who was authenticated, or all together.
    #[inline]
    pub fn user<'r>(&self, principal: Option<&'r Principal>) -> Option<&'r User> {
        static ALL: LazyLock<User> = LazyLock::new(|| User::new(""));
        match self {
            By::Key => Some(&principal?.id),
            By::All => Some(&ALL),
            _ => None,
        }
    }

    /// Whom or what a request concerns; `None` if it does not say.
    pub fn subject<'r>(&self, request: &Request<'r>) -> Option<Cow<'r, str>> {
        let header = |name: &str| {
            let value = request.headers.get(name)?.to_str().ok()?;
            (!value.is_empty()).then_some(Cow::Borrowed(value))
        };
        match self {
            By::Fingerprint => header("x-fingerprint"),
            By::Ip => Some(Cow::Owned(request.client.to_string())),
            By::User => header("x-user-id")
                .or_else(|| header("x-userid"))
                .or_else(|| header("user-id"))
                .or_else(|| {
                    let user = request.peek?.user.as_ref()?;
                    Some(Cow::Borrowed(&*user.value))
                }),
            By::Key => Some(Cow::Borrowed(&request.principal?.id)),
            By::Model => Some(Cow::Borrowed(request.model?)),
            By::Header(name) => header(name.as_str()),
            By::All => Some(Cow::Borrowed("")),
        }
    }

    /// Whether the body may have to be read to know it.
    pub fn reads_body(&self) -> bool {
        matches!(self, By::User | By::Model)
    }

    /// A limit of this plugin by it.
    pub fn limit(&self, host: &Host, rule: Rule) -> Limit {
        Limit {
            id: format!("{}/{}", host.identity, self.name()).into(),
            rule,
        }
    }
}

document! {
    /// What is counted by.
    enum Word {
        /// Every API key.
        Key = "key",
        /// Every user: by the headers `X-User-ID`, `X-UserID` and `User-ID`, else by the body's field `user`.
        User = "user",
        /// Every client address.
        Ip = "ip",
        /// Every model.
        Model = "model",
        /// Every client that tells its fingerprint by the header `X-Fingerprint`.
        Fingerprint = "fingerprint",
        /// All together.
        Global = "global",
    }
}

document! {
    /// Every value of a header.
    struct OfHeader {
        /// The header.
        #[example = "X-Team"]
        header: HeaderName,
    }
}

impl FromNode for By {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some() {
            let of = <OfHeader as FromNode>::read(node, at, r)?;
            return Some(Self::Header(of.header));
        }
        Some(match Word::read(node, at, r)? {
            Word::Key => Self::Key,
            Word::User => Self::User,
            Word::Ip => Self::Ip,
            Word::Model => Self::Model,
            Word::Fingerprint => Self::Fingerprint,
            Word::Global => Self::All,
        })
    }

    fn schema() -> Json {
        json!({"anyOf": [Word::schema(), <OfHeader as Document>::schema()]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Key => Word::Key.value(),
            Self::User => Word::User.value(),
            Self::Ip => Word::Ip.value(),
            Self::Model => Word::Model.value(),
            Self::Fingerprint => Word::Fingerprint.value(),
            Self::All => Word::Global.value(),
            Self::Header(name) => json!({"header": name.as_str()}),
        }
    }

    fn example() -> Json {
        Word::example()
    }
}

/// Refuses a table of limits that has none; `example` is one, by the name `per_ip`.
pub fn at_least_one(node: &Node, at: &At<'_>, r: &mut Reading<'_>, example: &Json) {
    if node.as_table().is_some_and(<[_]>::is_empty) {
        let example = r.format.field(By::Ip.name(), example);
        let help = format!("for example: {example}");
        r.error(node.span, at, "there must be at least one limit", help);
    }
}
