//! TLS towards clients, as documents say it: certificates in files, of listeners and of gateways.
//!
//! Paths are kept as they were written. What the files hold is looked at elsewhere.

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Document, Field, FromNode, Json, Node, Reading, json};

use super::FilePath;

document! {
    /// A certificate and its key, in PEM files; relative paths begin at the configuration file's folder.
    pub struct CertificateFiles {
        /// The certificate, followed by those that vouch for it.
        #[example = "api.pem"]
        certificate: FilePath,
        /// Its private key, without a passphrase.
        #[example = "api.key"]
        key: FilePath,
    }
}

/// Which certificate a listener shows.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerTls {
    /// That of the gateway whose host the client names, and none to others.
    Auto,
    /// That of the gateway, if it has one; this one to all others.
    Files(CertificateFiles),
}

/// A gateway's certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum Certificate {
    /// It has none of its own.
    None,
    /// It is ordered, as the table `[acme]` says.
    Ordered,
    /// It is in files.
    Files(CertificateFiles),
}

document! {
    /// Which certificate a listener shows.
    enum ListenerWord {
        /// That of the gateway whose host the client names.
        Auto = "auto",
    }
}

document! {
    /// A gateway's certificate.
    enum CertificateWord ("type") {
        /// It has none of its own.
        None = "none",
        /// It is ordered from an authority, for all hosts of the gateway, and renewed in time, as the table `[acme]` says.
        Ordered = "acme",
    }
}

document! {
    /// Whether clients must show a certificate.
    pub enum ClientCertificate {
        /// Who shows none is not let in.
        Required = "required",
        /// Who shows none may come all the same, with a key for example.
        Optional = "optional",
    }
}

/// A table without a `type` names files; everything else is a word.
fn names_files(node: &Node) -> bool {
    node.as_table().is_some() && node.entry("type").is_none()
}

impl FromNode for ListenerTls {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if names_files(node) {
            return <CertificateFiles as FromNode>::read(node, at, r).map(Self::Files);
        }
        ListenerWord::read(node, at, r).map(|ListenerWord::Auto| Self::Auto)
    }

    fn schema() -> Json {
        json!({"anyOf": [ListenerWord::schema(), <CertificateFiles as Document>::schema()]})
    }

    fn value(&self) -> Json {
        match self {
            Self::Auto => ListenerWord::Auto.value(),
            Self::Files(files) => files.value_fields().into(),
        }
    }

    fn example() -> Json {
        <CertificateFiles as Document>::example()
    }

    fn fields() -> Vec<Field> {
        <CertificateFiles as Document>::fields()
    }
}

impl FromNode for Certificate {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if names_files(node) {
            return <CertificateFiles as FromNode>::read(node, at, r).map(Self::Files);
        }
        CertificateWord::read(node, at, r).map(|word| match word {
            CertificateWord::None => Self::None,
            CertificateWord::Ordered => Self::Ordered,
        })
    }

    fn schema() -> Json {
        json!({"anyOf": [CertificateWord::schema(), <CertificateFiles as Document>::schema()]})
    }

    fn value(&self) -> Json {
        match self {
            Self::None => CertificateWord::None.value(),
            Self::Ordered => CertificateWord::Ordered.value(),
            Self::Files(files) => files.value_fields().into(),
        }
    }

    fn example() -> Json {
        <CertificateFiles as Document>::example()
    }

    fn fields() -> Vec<Field> {
        <CertificateFiles as Document>::fields()
    }
}
