//! Gateways: tenants, each a set of hosts with its own rules and services.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Document, Field, FromNode, Json, Node, Reading, json};

use super::pattern::is_host;
use super::{Auth, Certificate, ClientCertificate, FilePath, HostPattern, Name, Plugin};

document! {
    /// A tenant: a set of hosts with its own rules and services.
    pub struct Gateway (checked) {
        /// Its name.
        name: Name,
        /// What it is for.
        #[example = "the research team"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The hosts it answers to: "api.example.com", "*.example.com", or "*".
        #[example = ["api.example.com"]]
        hosts: Vec<HostPattern> = Vec::new(),
        /// Adds the host `<subdomain>.<domain>`.
        #[example = "research"]
        subdomain: Option<String>,
        /// Its domain: each service is also at `<service>.<domain>`, and the models at `gateway.<domain>`.
        #[example = "example.com"]
        domain: Option<String>,
        /// Whether it takes requests whose host matches no gateway; without such a gateway they get 421.
        default: bool = false,
        /// Who may use it: "api_key", whoever has one of its keys; "none", everybody; `{ type = "jwt", issuer = "…", audience = "…", jwks_url = "…" }`,
        /// whoever has a token that the issuer signed; `{ type = "http", url = "…" }`, whoever has a token that an identity service allows. Every
        /// table may name one more header for the key or token: `{ type = "api_key", header = "X-TG-API-Key" }`.
        auth: Auth = Auth::API_KEY,
        /// Where the model's name is: `{ by = "body" }`, `{ by = "path" }`, `{ by = "header", header = "X-Model-Name" }` or `{ by = "none" }`.
        routing: Routing = Routing::default(),
        /// The services tried next, in order and after a service's own, when one cannot serve.
        #[example = ["provider"]]
        fallback: Vec<Name> = Vec::new(),
        /// Addresses that may use it; if empty, all may. Others get 403.
        allowed_ips: Vec<IpNet> = Vec::new(),
        /// Addresses that may not; they get 403.
        denied_ips: Vec<IpNet> = Vec::new(),
        /// The plugins that every request of the gateway passes, by priority.
        #[example = []]
        plugins: Vec<Plugin> = Vec::new(),
        /// Whether it serves.
        status: Status = Status::Active,
        /// Its certificate on listeners that speak TLS: `{ certificate = "api.pem", key = "api.key" }`; "acme", ordered and renewed as the table `[acme]`
        /// says; or "none".
        certificate: Certificate = Certificate::None,
        /// A PEM file with the authorities that vouch for clients: only with a certificate of its own. Of a client with a certificate the gateway's key
        /// is the one whose `hash` is that certificate's SHA-256 fingerprint, unless it sends another.
        #[example = "clients.pem"]
        client_ca: Option<FilePath>,
        /// Whether clients must show a certificate that `client_ca` vouches for.
        client_certificate: ClientCertificate = ClientCertificate::Required,
        /// Whether requests that come without TLS are sent to `https` (308).
        redirect_https: bool = false,
        /// How long browsers are to insist on TLS, said with every answer over TLS; not said by default.
        #[example = "365d"]
        hsts: Option<Duration>,
    }
}

impl Gateway {
    /// What concerns several fields.
    fn check(mut self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        for (name, value) in [
            ("subdomain", &mut self.subdomain),
            ("domain", &mut self.domain),
        ] {
            if let (Some(given), Some(text)) = (node.entry(name), value) {
                text.make_ascii_lowercase();
                if !is_host(text) {
                    let message = format!("{}: not a part of a host name", given.quoted());
                    r.error(
                        given.span,
                        &at.field(name),
                        message,
                        "letters, digits, hyphens and dots",
                    );
                }
            }
        }
        if let (Some(given), None) = (node.entry("subdomain"), node.entry("domain")) {
            let help = format!("add: {}", r.format.field("domain", &json!("example.com")));
            r.error(
                given.span,
                &at.field("subdomain"),
                "a subdomain needs a domain",
                help,
            );
        }
        if let (Some(given), Certificate::None) = (node.entry("client_ca"), &self.certificate) {
            let files = json!({"certificate": "api.pem", "key": "api.key"});
            let help = format!("add: {}", r.format.field("certificate", &files));
            let message =
                "clients can be asked for theirs only by a gateway with a certificate of its own";
            r.error(given.span, &at.field("client_ca"), message, help);
        }
        self
    }
}

document! {
    /// Whether a gateway serves.
    pub enum Status {
        /// It serves.
        Active = "active",
        /// It answers 503.
        Paused = "paused",
    }
}

document! {
    /// Where the model's name is.
    pub struct Routing (default custom) {
        /// Where to look.
        by: By = By::Body,
        /// The header that holds it, 1 to 100 characters; only with `by = "header"`.
        #[example = "X-Model-Name"]
        header: Option<HeaderName>,
    }
}

document! {
    /// Where to look for the model's name.
    pub enum By {
        /// In the field `model` of a JSON body.
        Body = "body",
        /// In the first segment of the path, URL-encoded, which is taken off before sending.
        Path = "path",
        /// In a header.
        Header = "header",
        /// Nowhere: rules only.
        None = "none",
    }
}

/// Read from a table, or from its `by` alone.
impl FromNode for Routing {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let routing = if node.as_str().is_some() {
            Self {
                by: By::read(node, at, r)?,
                header: None,
            }
        } else {
            <Self as Document>::read(node, at, r)?
        };
        match (routing.by, &routing.header, node.entry("header")) {
            (By::Header, None, None) => {
                let example = json!({"by": "header", "header": "X-Model-Name"});
                let help = r.format.field(at.name().unwrap_or("routing"), &example);
                r.error(
                    node.span,
                    at,
                    "routing by header needs to know which",
                    format!("for example: {help}"),
                );
            }
            (By::Header, Some(header), Some(given)) if header.as_str().len() > 100 => {
                let message = format!("a name of {} characters is too long", header.as_str().len());
                r.error(
                    given.span,
                    &at.field("header"),
                    message,
                    "1 to 100 characters",
                );
            }
            (By::Body | By::Path | By::None, _, Some(given)) => {
                let help = format!(
                    "take it out, or write: {}",
                    r.format.field("by", &json!("header"))
                );
                r.error(
                    given.span,
                    &at.field("header"),
                    "a header is only for routing by header",
                    help,
                );
            }
            _ => {}
        }
        Some(routing)
    }

    fn schema() -> Json {
        json!({"anyOf": [By::schema(), <Self as Document>::schema()]})
    }

    fn value(&self) -> Json {
        self.value_fields().into()
    }

    fn example() -> Json {
        json!({"by": "body"})
    }

    fn fields() -> Vec<Field> {
        <Self as Document>::fields()
    }
}
