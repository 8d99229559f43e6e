//! Where certificates are ordered: the process-wide table `[acme]` (RFC 8555), for gateways with `certificate = "acme"`.
//!
//! What stands in the way of an order, as far as the configuration tells, is said here once, for whoever checks and for whoever orders.

use std::time::Duration;

use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, Node, Reading, json,
};
use tollgate_sdk::secret::Secret;
use tollgate_sdk::{document, text_in_document};

use super::health::refuse_zero;
use super::{Certificate, FilePath, Gateway, HostPattern, WebUrl};

/// Characters that an encryption key has at least: 32 bytes of chance are 44 in base64 and 64 in hex.
const SHORTEST_KEY: usize = 32;

document! {
    /// Where certificates are ordered (ACME, RFC 8555), for gateways with `certificate = "acme"`.
    pub struct Acme (default checked) {
        /// The directory of the authority.
        directory: Directory = Directory::lets_encrypt(),
        /// A PEM file with the authorities that vouch for the directory's server; by default those of the system.
        #[example = "directory.pem"]
        ca: Option<FilePath>,
        /// Whether you agree to the authority's terms of service. Nothing is ordered before.
        terms_agreed: bool = false,
        /// Where the authority may write to.
        #[example = "ops@example.com"]
        email: Option<String>,
        /// How the authority sees that a host is yours: "http-01", at port 80 of the host, which must be a plain listener; "tls-alpn-01", at port 443, a
        /// listener with TLS; or `{ type = "dns-01", exec = ["/etc/tollgate/dns-hook"] }`, by a record that the program writes: the only one for wildcards.
        challenge: Proof = Proof::Http01,
        /// What clients are shown while a gateway has no certificate yet.
        until_issued: UntilIssued = UntilIssued::Refuse,
        /// The name of an account that the authority gave you by other means (external account binding).
        #[example = "kid-1"]
        eab_key_id: Option<String>,
        /// The key of that account, in base64 for URLs, as the authority gives it.
        #[example = "${ACME_HMAC_KEY:-}"]
        eab_hmac_key: Option<Secret<String>>,
        /// What keys and certificates are sealed with where state is kept, 32 characters or more: `openssl rand -base64 32`. Needed unless
        /// `server.state` is "memory".
        #[example = "${TOLLGATE_ACME_KEY:-}"]
        encryption_key: Option<Secret<String>>,
        /// How long it may take until an order that failed is tried again; it doubles each time, up to six hours, and chance shortens it.
        backoff: Duration = Duration::from_secs(60),
    }
}

document! {
    /// What clients are shown while a gateway has no certificate yet.
    pub enum UntilIssued {
        /// Nothing: the handshake is refused.
        Refuse = "refuse",
        /// A certificate that vouches for itself, which no client trusts by default.
        SelfSigned = "self_signed",
    }
}

impl Acme {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        refuse_zero([("backoff", self.backoff)], node, at, r);
        for (name, given, other) in [
            (
                "eab_key_id",
                self.eab_key_id.is_some(),
                self.eab_hmac_key.is_some(),
            ),
            (
                "eab_hmac_key",
                self.eab_hmac_key.is_some(),
                self.eab_key_id.is_some(),
            ),
        ] {
            if let (Some(node), true, false) = (node.entry(name), given, other) {
                let message = "an account that was given has a name and a key";
                let help = "give both: eab_key_id and eab_hmac_key";
                r.error(node.span, &at.field(name), message, help);
            }
        }
        if let (Some(given), Some(key)) = (node.entry("encryption_key"), &self.encryption_key)
            && key.expose().chars().count() < SHORTEST_KEY
        {
            let message = format!("an encryption key has {SHORTEST_KEY} characters or more");
            let help = "make one: openssl rand -base64 32";
            r.error(given.span, &at.field("encryption_key"), message, help);
        }
        self
    }

    /// What stands in the way of ordering a certificate for a gateway, and how to mend it; nothing of gateways that want none. `in_file`: state is kept
    /// in a file.
    pub fn obstacles(&self, gateway: &Gateway, in_file: bool) -> Vec<(String, &'static str)> {
        if gateway.certificate != Certificate::Ordered {
            return Vec::new();
        }
        let mut found = Vec::new();
        if !self.terms_agreed {
            let message = "certificates are ordered only once you agree to the authority's terms";
            let help = "read them, and add to the table [acme] of the file: terms_agreed = true";
            found.push((message.to_owned(), help));
        }
        if in_file && self.encryption_key.is_none() {
            let message =
                "keys of certificates are kept sealed only, and there is nothing to seal them with";
            let help = "add to the table [acme] of the file: encryption_key = \"${TOLLGATE_ACME_KEY}\", made by openssl rand -base64 32";
            found.push((message.to_owned(), help));
        }
        let nameable = |host: &HostPattern| *host != HostPattern::Any;
        if gateway.domain.is_none() && !gateway.hosts.iter().any(nameable) {
            let message = "there is no host to order a certificate for";
            found.push((
                message.to_owned(),
                "name the gateway's hosts, or its domain",
            ));
        }
        let by_record = matches!(self.challenge, Proof::Dns01 { .. });
        let wild = { gateway.hosts.iter() }
            .filter(|host| matches!(host, HostPattern::Wildcard(_)) && !by_record);
        for host in wild {
            let message =
                format!("a certificate for {host} is issued to those only who can write its DNS");
            let help = "name the hosts one by one, or write in the table [acme] of the file: challenge = { type = \"dns-01\", exec = [\"/etc/tollgate/dns-hook\"] }";
            found.push((message, help));
        }
        found
    }
}

/// An authority's directory: an address with `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(String);

impl Directory {
    fn lets_encrypt() -> Self {
        Self("https://acme-v02.api.letsencrypt.org/directory".into())
    }

    /// The address as it is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for Directory {
    const EXPECTED: &'static str = "a URL";
    const EXAMPLE: &'static str = "https://acme-v02.api.letsencrypt.org/directory";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let url = WebUrl::from_text(text)?;
        match url.as_str().starts_with("https://") {
            true => Ok(Self(url.as_str().to_owned())),
            // RFC 8555, section 6.1.
            false => Err(Invalid::new("an authority is asked over https only")
                .help("write \"https://host/directory\"")),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

text_in_document!(Directory);

/// How the authority sees that a host is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By an answer in the clear at port 80 (RFC 8555, section 8.3).
    Http01,
    /// By a certificate in a handshake at port 443 (RFC 8737).
    TlsAlpn01,
    /// By a record of its DNS (RFC 8555, section 8.4).
    Dns01 {
        /// The program that writes it, with its first arguments.
        exec: Vec<String>,
    },
}

document! {
    /// How the authority sees that a host is yours.
    enum ProofKind {
        /// By an answer in the clear, at port 80 of the host.
        Http01 = "http-01",
        /// By a handshake, at port 443 of the host.
        TlsAlpn01 = "tls-alpn-01",
        /// By a record of the host's DNS.
        Dns01 = "dns-01",
    }
}

document! {
    /// How the authority sees that a host is yours.
    struct ProofTable (custom) {
        /// By what.
        #[written = "type"]
        kind: ProofKind,
        /// Of "dns-01": the program that writes and takes away records, with arguments. It is called with `present` or `cleanup`, the record's name and its
        /// text after these, and comes back once others see the record.
        #[example = ["/etc/tollgate/dns-hook"]]
        exec: Vec<String> = Vec::new(),
    }
}

impl FromNode for Proof {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let table = match node.as_table() {
            Some(_) => <ProofTable as Document>::read(node, at, r)?,
            None => ProofTable {
                kind: ProofKind::read(node, at, r)?,
                exec: Vec::new(),
            },
        };
        match (table.kind, table.exec) {
            (ProofKind::Dns01, exec) if exec.first().is_none_or(String::is_empty) => {
                let example = json!({"type": "dns-01", "exec": ["/etc/tollgate/dns-hook"]});
                let help = format!("write: {}", r.format.field("challenge", &example));
                let message = "dns-01 needs to know the program that writes records";
                r.error(node.span, at, message, help);
                None
            }
            (ProofKind::Dns01, exec) => Some(Self::Dns01 { exec }),
            (kind, exec) => {
                if let (Some(given), false) = (node.entry("exec"), exec.is_empty()) {
                    let message = "a program is only for dns-01";
                    r.error(given.span, &at.field("exec"), message, "take it out");
                }
                Some(match kind {
                    ProofKind::TlsAlpn01 => Self::TlsAlpn01,
                    ProofKind::Http01 | ProofKind::Dns01 => Self::Http01,
                })
            }
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [ProofKind::schema(), <ProofTable as Document>::schema()]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Http01 => ProofKind::Http01.value(),
            Self::TlsAlpn01 => ProofKind::TlsAlpn01.value(),
            Self::Dns01 { exec } => json!({"type": ProofKind::Dns01.word(), "exec": exec}),
        }
    }

    fn example() -> Json {
        ProofKind::Http01.value()
    }

    fn fields() -> Vec<Field> {
        <ProofTable as Document>::fields()
    }
}
