//! Who may use a gateway: everybody, whoever has a key, or whoever has a token that somebody vouches for.
//!
//! One table with a `type` is read, and each type becomes a value of its own, so that what belongs to another type is refused by name
//! here and cannot be met later. Nothing is asked and no file is opened while settings are read.

#[cfg(test)]
mod tests;
mod url;

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Document, Field, FromNode, Json, Node, Reading, json};

pub use url::WebUrl;

/// Who may use a gateway or a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// How it is told.
    pub by: AuthBy,
    /// A header for the key or token besides the usual ones; looked at first.
    pub header: Option<HeaderName>,
}

/// How it is told who may use a gateway or a service.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthBy {
    /// Everybody may.
    None,
    /// Whoever has one of the gateway's keys.
    ApiKey,
    /// Whoever has a JSON Web Token that is signed by one of these keys.
    Jwt(Box<JwtAuth>),
    /// Whoever has a token that an identity service knows.
    Http(Box<HttpAuth>),
}

/// Which JSON Web Tokens are believed.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtAuth {
    /// What `iss` must be, if told.
    pub issuer: Option<String>,
    /// One of these must be in `aud`, unless there are none.
    pub audience: Vec<String>,
    /// Whose signatures are believed.
    pub keys: KeySource,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Which claims mean what.
    pub claims: Claims,
}

/// Where the issuer's keys are, a JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// At an address.
    Url(WebUrl),
    /// In a file, by its absolute path.
    File(String),
}

/// An identity service.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAuth {
    /// Where it is asked.
    pub url: WebUrl,
    /// How it is asked.
    pub method: AskBy,
    /// Headers of the request, a credential of the gateway's own among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long its answer holds.
    pub cache: Duration,
    /// How much longer a "yes" holds while it is down.
    pub stale: Duration,
}

document! {
    /// Who may use a gateway or a service.
    pub(super) struct Table (custom) {
        /// How it is told.
        #[written = "type"]
        kind: AuthKind,
        /// A header for the key or token besides `Authorization: Bearer` and `x-api-key`; looked at first.
        #[example = "X-TG-API-Key"]
        header: Option<HeaderName>,
        /// Of "jwt": what `iss` of a token must be.
        #[example = "https://id.example.com"]
        issuer: Option<String>,
        /// Of "jwt": one of these must be in `aud` of a token; if empty, that is not looked at.
        #[example = "tollgate"]
        audience: Several = Several(Vec::new()),
        /// Of "jwt": where the issuer publishes its keys. This or `jwks_file`.
        #[example = "https://id.example.com/.well-known/jwks.json"]
        jwks_url: Option<WebUrl>,
        /// Of "jwt": a file with the issuer's keys, by its absolute path; it is read again when it changes.
        #[example = "/etc/tollgate/jwks.json"]
        jwks_file: Option<String>,
        /// Of "jwt": how far the issuer's clock may differ.
        leeway: Duration = Duration::from_secs(60),
        /// Of "jwt": which claims tell who asks and what of the gateway they may use.
        claims: Claims = Claims::default(),
        /// Of "http": where the identity service is asked.
        #[example = "https://id.example.com/v1/me"]
        url: Option<WebUrl>,
        /// Of "http": how it is asked.
        method: AskBy = AskBy::Get,
        /// Of "http": headers of the request, for instance a credential of the gateway's own.
        #[example = {"X-Gateway": "main"}]
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(),
        /// Of "http": how long it may take to answer.
        timeout: Duration = Duration::from_secs(2),
        /// Of "http": how long its answer holds.
        cache: Duration = Duration::from_secs(60),
        /// Of "http": how much longer a token that was allowed goes on while the service is down.
        stale: Duration = Duration::from_secs(600),
    }
}

document! {
    /// How it is told who may use a gateway or a service.
    pub enum AuthKind {
        /// Everybody may.
        None = "none",
        /// Whoever has one of the gateway's keys.
        ApiKey = "api_key",
        /// Whoever has a JSON Web Token that one of the issuer's keys signed, by RS256, ES256 or EdDSA.
        Jwt = "jwt",
        /// Whoever has a token that an identity service allows.
        Http = "http",
    }
}

document! {
    /// How an identity service is asked.
    pub enum AskBy {
        /// `GET` with the client's token as `Authorization: Bearer`.
        Get = "GET",
        /// `POST` with the form `token=…` (RFC 7662). Without an `Authorization` among `headers`, the token is sent as that, too.
        Post = "POST",
    }
}

document! {
    /// Which claims of a token mean what, as names with dots between the levels. A scope is a list of names, or text with spaces between them. A
    /// token without a claim that is named here opens nothing.
    pub struct Claims (default) {
        /// Who it is.
        subject: String = "sub".into(),
        /// The services it may use; if no claim is named, all.
        #[example = "tollgate.services"]
        services: Option<String>,
        /// The models it may ask for, a trailing `*` matching any rest; if no claim is named, all.
        #[example = "tollgate.models"]
        models: Option<String>,
        /// The rules it may go by; if no claim is named, all.
        #[example = "tollgate.rules"]
        rules: Option<String>,
    }
    later ["limits"]
}

/// One text or several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Several(pub Vec<String>);

impl FromNode for Several {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match node.as_str() {
            Some(one) => Some(Self(vec![one.to_owned()])),
            None => Vec::read(node, at, r).map(Self),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [String::schema(), Vec::<String>::schema()]})
    }

    fn value(&self) -> Json {
        match self.0.as_slice() {
            [one] => one.value(),
            several => several.iter().map(FromNode::value).collect(),
        }
    }

    fn example() -> Json {
        json!("text")
    }
}

/// The fields of one type alone.
const JWT: [&str; 6] = [
    "issuer",
    "audience",
    "jwks_url",
    "jwks_file",
    "leeway",
    "claims",
];
const HTTP: [&str; 6] = ["url", "method", "headers", "timeout", "cache", "stale"];

impl AuthKind {
    /// The types beside `type` that know this field.
    fn of_field(name: &str) -> &'static [AuthKind] {
        match name {
            "header" => &[AuthKind::ApiKey, AuthKind::Jwt, AuthKind::Http],
            name if JWT.contains(&name) => &[AuthKind::Jwt],
            name if HTTP.contains(&name) => &[AuthKind::Http],
            _ => &[
                AuthKind::None,
                AuthKind::ApiKey,
                AuthKind::Jwt,
                AuthKind::Http,
            ],
        }
    }

    /// Whatever is needed of a type that has settings; keys and everybody need none.
    fn bare(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<AuthBy> {
        let example = match self {
            AuthKind::None => return Some(AuthBy::None),
            AuthKind::ApiKey => return Some(AuthBy::ApiKey),
            AuthKind::Jwt => {
                json!({"type": "jwt", "jwks_url": "https://id.example.com/.well-known/jwks.json"})
            }
            AuthKind::Http => json!({"type": "http", "url": "https://id.example.com/v1/me"}),
        };
        let written = r.format.field(at.name().unwrap_or("auth"), &example);
        let message = format!("\"{}\" needs settings", self.word());
        r.error(node.span, at, message, format!("for example: {written}"));
        None
    }
}

impl Auth {
    /// The gateway's keys open it.
    pub const API_KEY: Auth = Auth {
        by: AuthBy::ApiKey,
        header: None,
    };

    /// Its type.
    pub fn kind(&self) -> AuthKind {
        match &self.by {
            AuthBy::None => AuthKind::None,
            AuthBy::ApiKey => AuthKind::ApiKey,
            AuthBy::Jwt(_) => AuthKind::Jwt,
            AuthBy::Http(_) => AuthKind::Http,
        }
    }
}

/// Read from a table, or from its `type` alone.
impl FromNode for Auth {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_none() {
            let kind = AuthKind::read(node, at, r)?;
            return kind.bare(node, at, r).map(|by| Auth { by, header: None });
        }
        let table = <Table as Document>::read(node, at, r)?;
        refuse_foreign(table.kind, node, at, r);
        let by = match table.kind {
            AuthKind::None => AuthBy::None,
            AuthKind::ApiKey => AuthBy::ApiKey,
            AuthKind::Jwt => AuthBy::Jwt(Box::new(table.jwt(node, at, r)?)),
            AuthKind::Http => AuthBy::Http(Box::new(table.http(node, at, r)?)),
        };
        let header = table.header;
        Some(Auth { by, header })
    }

    fn schema() -> Json {
        let bare = json!({"enum": ["none", "api_key"]});
        let reference = json!({"type": "string", "pattern": r"\$\{"});
        json!({"anyOf": [bare, reference, <Table as Document>::schema()]})
    }

    fn value(&self) -> Json {
        let kind = self.kind();
        if self.header.is_none() && matches!(kind, AuthKind::None | AuthKind::ApiKey) {
            return kind.value();
        }
        let mut fields = Table::from(self.clone()).value_fields();
        fields.retain(|name, _| AuthKind::of_field(name).contains(&kind));
        fields.into()
    }

    fn example() -> Json {
        json!("api_key")
    }

    fn fields() -> Vec<Field> {
        Vec::new()
    }
}

/// Reports every field that means nothing with this type.
fn refuse_foreign(kind: AuthKind, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    for (key, _) in node.as_table().unwrap_or_default() {
        let owners = AuthKind::of_field(&key.text);
        if owners.contains(&kind) {
            continue;
        }
        let owner = owners.first().map_or("", |owner| owner.word());
        let message = format!("{} means nothing with type = \"{}\"", key.text, kind.word());
        let help = format!("take it out, or write: type = \"{owner}\"");
        r.error(key.span, &at.field(&key.text), message, help);
    }
}

impl Table {
    fn jwt(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<JwtAuth> {
        let example = json!("https://id.example.com/.well-known/jwks.json");
        let given = (node.entry("jwks_url"), node.entry("jwks_file"));
        match given {
            (Some(_), Some(file)) => {
                let help = "keep one: the address where the issuer publishes its keys, or a file";
                let message = "given beside `jwks_url`";
                r.error(file.span, &at.field("jwks_file"), message, help);
            }
            (None, None) => {
                let help = format!("add: {}", r.format.field("jwks_url", &example));
                let message = "missing field `jwks_url` (or `jwks_file`)";
                r.error(node.span, at, message, help);
            }
            (None, Some(file)) => {
                let path = self.jwks_file.as_deref().unwrap_or("/");
                if !Path::new(path).is_absolute() {
                    let message = format!("{}: not an absolute path", file.quoted());
                    let help = "write it from the root: \"/etc/tollgate/jwks.json\"";
                    r.error(file.span, &at.field("jwks_file"), message, help);
                }
            }
            (Some(_), None) => {}
        }
        let texts = [("issuer", &self.issuer)];
        for (name, text) in texts {
            if let (Some(given), Some("")) = (node.entry(name), text.as_deref()) {
                let help = "take it out, or write what tokens say";
                r.error(given.span, &at.field(name), "it is empty", help);
            }
        }
        let source = self.jwks_url.clone().map(KeySource::Url);
        let source = source.or_else(|| self.jwks_file.clone().map(KeySource::File));
        Some(JwtAuth {
            issuer: self.issuer.clone(),
            audience: self.audience.0.clone(),
            keys: source?,
            leeway: self.leeway,
            claims: self.claims.clone(),
        })
    }

    fn http(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<HttpAuth> {
        if node.entry("url").is_none() {
            let example = json!("https://id.example.com/v1/me");
            let help = format!("add: {}", r.format.field("url", &example));
            r.error(node.span, at, "missing field `url`", help);
        }
        for (name, duration) in [("timeout", self.timeout), ("cache", self.cache)] {
            if let (Some(given), true) = (node.entry(name), duration.is_zero()) {
                let help = "write how long, for example \"2s\"";
                r.error(given.span, &at.field(name), "no time at all", help);
            }
        }
        let own = self
            .headers
            .iter()
            .any(|(name, _)| *name == http::header::AUTHORIZATION);
        if let (true, AskBy::Get, Some(given)) = (own, self.method, node.entry("headers")) {
            let message = "with method = \"GET\", `Authorization` is the client's token";
            let help =
                "write: method = \"POST\", or give the gateway's credential in another header";
            r.error(given.span, &at.field("headers"), message, help);
        }
        Some(HttpAuth {
            url: self.url.clone()?,
            method: self.method,
            headers: self.headers.clone(),
            timeout: self.timeout,
            cache: self.cache,
            stale: self.stale,
        })
    }
}

/// As it would be written.
impl From<Auth> for Table {
    fn from(auth: Auth) -> Table {
        let mut table = Table {
            kind: auth.kind(),
            header: auth.header,
            issuer: None,
            audience: Several::default(),
            jwks_url: None,
            jwks_file: None,
            leeway: Duration::ZERO,
            claims: Claims::default(),
            url: None,
            method: AskBy::Get,
            headers: Vec::new(),
            timeout: Duration::ZERO,
            cache: Duration::ZERO,
            stale: Duration::ZERO,
        };
        match auth.by {
            AuthBy::None | AuthBy::ApiKey => {}
            AuthBy::Jwt(jwt) => {
                (table.issuer, table.audience) = (jwt.issuer, Several(jwt.audience));
                (table.leeway, table.claims) = (jwt.leeway, jwt.claims);
                match jwt.keys {
                    KeySource::Url(url) => table.jwks_url = Some(url),
                    KeySource::File(path) => table.jwks_file = Some(path),
                }
            }
            AuthBy::Http(http) => {
                (table.url, table.method) = (Some(http.url), http.method);
                (table.headers, table.timeout) = (http.headers, http.timeout);
                (table.cache, table.stale) = (http.cache, http.stale);
            }
        }
        table
    }
}
