//! From the text of PEM files to certificates and keys, and what is wrong with them.
//!
//! Nothing here is shown to anybody but names, dates and the kind of a mistake; a key's text leads to nothing that is printed.

use std::path::Path;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use tollgate_sdk::secret::Secret;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};

/// The text of a file, or a sentence on why it cannot be had.
pub type ReadPem<'r> = dyn Fn(&Path) -> Result<Secret<String>, String> + 'r;

/// Which of the files that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate and those that vouch for it.
    Certificate,
    /// Its private key.
    Key,
    /// The authorities that vouch for the other side.
    Authorities,
    /// The lists of certificates that are revoked.
    Revoked,
}

/// What is wrong with a file, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub part: Part,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: &'static str,
}

impl Wrong {
    pub(super) fn new(part: Part, message: impl Into<String>, help: &'static str) -> Self {
        Self {
            part,
            message: message.into(),
            help,
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The names it is for, as they stand in it: `api.example.com`, `*.example.com`, addresses.
    pub names: Vec<String>,
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// From when on it is good, in seconds after 1970.
    pub not_before: i64,
    /// Until when it is good, in seconds after 1970.
    pub not_after: i64,
}

impl Leaf {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let extensions = parsed.extensions().iter();
        let names = extensions.filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        Some(Self {
            names: names.flatten().filter_map(written).collect(),
            subject: called(parsed.subject()),
            issuer: called(parsed.issuer()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Whether it is for this host: exactly, or by a wildcard in the place of the first label (RFC 6125, section 6.4.3).
    pub fn is_for(&self, host: &str) -> bool {
        let rest = host.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => rest.is_some_and(|rest| rest.eq_ignore_ascii_case(suffix)),
            None => name.eq_ignore_ascii_case(host),
        })
    }

    /// Why it is not good at this time, if it is not.
    pub fn untimely(&self, now: SystemTime) -> Option<String> {
        match seconds(now)? {
            now if now > self.not_after => Some(format!("it ended on {}", day(self.not_after))),
            now if now < self.not_before => Some(format!("it begins on {}", day(self.not_before))),
            _ => None,
        }
    }
}

/// Seconds after 1970.
pub(super) fn seconds(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// The day and the time that is so many seconds after 1970.
pub(super) fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "…".into(), |t| t.to_string())
}

fn written(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| std::net::IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| std::net::IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}

/// The common name, or all of it.
pub(super) fn called(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next();
    let common = common.and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

/// A certificate with its chain and its key, which belong together.
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    /// The key as its file has it.
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) leaf: Leaf,
}

/// Reads a pair.
pub(super) fn pair(
    certificate: Result<Secret<String>, String>,
    key: Result<Secret<String>, String>,
    provider: &CryptoProvider,
) -> Result<Pair, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut keep = |mistake| wrong.push(mistake);
    let chain = chain(certificate, Part::Certificate)
        .map_err(&mut keep)
        .ok();
    let key = private_key(key).map_err(&mut keep).ok();
    let (Some((chain, leaf)), Some(key)) = (chain, key) else {
        return Err(wrong);
    };
    match CertifiedKey::from_der(chain, key.clone_key(), provider) {
        Ok(certified) => Ok(Pair {
            certified,
            key,
            leaf,
        }),
        Err(error) => Err(vec![match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Wrong::new(
                Part::Key,
                "it is not the key of the certificate",
                "name the key that the certificate was made with",
            ),
            _ => Wrong::new(
                Part::Key,
                "the key is of a kind that is not supported",
                "use RSA of 2048 bits or more, ECDSA (P-256, P-384) or Ed25519",
            ),
        }]),
    }
}

/// Certificates, the first of which the others vouch for.
pub(super) fn chain(
    text: Result<Secret<String>, String>,
    part: Part,
) -> Result<(Vec<CertificateDer<'static>>, Leaf), Wrong> {
    let text = text.map_err(|why| unreadable(part, why))?;
    let none = "a PEM file begins with -----BEGIN CERTIFICATE-----";
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.expose().as_bytes()).collect();
    let chain = read.map_err(|_| Wrong::new(part, "the file is not well-formed PEM", none))?;
    if chain.is_empty() {
        return Err(Wrong::new(
            part,
            "there is no certificate in the file",
            none,
        ));
    }
    let mut leaves = Vec::with_capacity(chain.len());
    for (index, certificate) in chain.iter().enumerate() {
        let leaf = Leaf::of(certificate);
        leaves.push(leaf.ok_or_else(|| {
            let message = format!("certificate {} in the file is not one", index + 1);
            Wrong::new(part, message, "get it from its issuer again")
        })?);
    }
    let first = leaves.into_iter().next();
    let first =
        first.ok_or_else(|| Wrong::new(part, "there is no certificate in the file", none))?;
    Ok((chain, first))
}

fn private_key(text: Result<Secret<String>, String>) -> Result<PrivateKeyDer<'static>, Wrong> {
    let part = Part::Key;
    let text = text.map_err(|why| unreadable(part, why))?;
    let text = text.expose();
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        let help = "take the passphrase off: openssl pkey -in FILE -out FILE";
        return Err(Wrong::new(part, "the key has a passphrase", help));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        let help = "a PEM file with a key begins with -----BEGIN PRIVATE KEY-----";
        Wrong::new(part, "there is no private key in the file", help)
    })
}

fn unreadable(part: Part, why: String) -> Wrong {
    let help = "name a file that the gateway can read; relative paths begin at the configuration file's folder";
    Wrong::new(part, why, help)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn leaf() -> Leaf {
        Leaf {
            names: vec!["a.example".into(), "*.b.example".into(), "127.0.0.1".into()],
            subject: String::new(),
            issuer: String::new(),
            not_before: 1_000,
            not_after: 2_000,
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for host in ["a.example", "A.Example", "x.b.example", "127.0.0.1"] {
            assert!(leaf().is_for(host), "{host}");
        }
        for host in ["b.example", "x.y.b.example", "x.a.example", "", "example"] {
            assert!(!leaf().is_for(host), "{host}");
        }
    }

    #[test]
    fn time_is_told() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(leaf().untimely(at(1_500)), None);
        let early = leaf().untimely(at(999)).unwrap();
        assert_eq!(early, "it begins on 1970-01-01T00:16:40Z");
        let late = leaf().untimely(at(2_001)).unwrap();
        assert_eq!(late, "it ended on 1970-01-01T00:33:20Z");
    }
}
