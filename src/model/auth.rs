//! Who may use a gateway.

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Document, Field, FromNode, Json, Node, Reading, json};

document! {
    /// Who may use a gateway or a service.
    pub struct Auth (custom) {
        /// How it is told.
        #[written = "type"]
        kind: AuthKind,
        /// A header for the key besides `Authorization: Bearer` and `x-api-key`; looked at first.
        #[example = "X-TG-API-Key"]
        header: Option<HeaderName>,
    }
    later ["issuer", "audience", "jwks_url", "jwks_file", "claims", "url", "cache", "stale"]
}

document! {
    /// How it is told who may use a gateway or a service.
    pub enum AuthKind {
        /// Everybody may.
        None = "none",
        /// Whoever has one of the gateway's keys.
        ApiKey = "api_key",
    }
    later ["jwt", "http"]
}

impl Auth {
    /// The gateway's keys open it.
    pub const API_KEY: Auth = Auth {
        kind: AuthKind::ApiKey,
        header: None,
    };
}

/// Read from a table, or from its `type` alone.
impl FromNode for Auth {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_none() {
            return Some(Self {
                kind: AuthKind::read(node, at, r)?,
                header: None,
            });
        }
        let auth = <Self as Document>::read(node, at, r)?;
        if let (AuthKind::None, Some(given)) = (auth.kind, node.entry("header")) {
            let help = "take it out, or ask for keys: type = \"api_key\"";
            let message = "a header is only for keys";
            r.error(given.span, &at.field("header"), message, help);
        }
        Some(auth)
    }

    fn schema() -> Json {
        json!({"anyOf": [AuthKind::schema(), <Self as Document>::schema()]})
    }

    fn value(&self) -> Json {
        match &self.header {
            None => self.kind.value(),
            Some(_) => self.value_fields().into(),
        }
    }

    fn example() -> Json {
        json!("api_key")
    }

    fn fields() -> Vec<Field> {
        Vec::new()
    }
}
