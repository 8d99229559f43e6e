//! Certificates made for a test, and in what manner a client speaks TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tollgate::config::{self, Diagnostics, Loaded};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Vouches for certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for these names, good for servers and clients.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_as(names, |_| ())
    }

    /// One whose time is over.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_as(names, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    fn issue_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Its list of certificates that it has revoked, these, as PEM.
    pub(crate) fn list(&self, revoked: &[&Issued]) -> String {
        self.list_until(revoked, 2100)
    }

    /// One that was to be replaced at the beginning of this year.
    pub(crate) fn list_until(&self, revoked: &[&Issued], year: i32) -> String {
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: issued.serial().into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// The authority's certificate in a file.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        replace(&path, &self.pem);
        path
    }

    /// Clients that trust it alone.
    pub(crate) fn trusted(&self) -> Manner {
        Manner::trusting(&self.pem)
    }
}

impl Issued {
    /// Nobody else vouches for it.
    pub(crate) fn self_signed(names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Issued {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    /// Both in files `NAME.pem` and `NAME.key`; what a document says of them: `certificate = "…", key = "…"`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> String {
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        replace(&path("pem"), &self.certificate);
        replace(&path("key"), &self.key);
        format!(
            "certificate = \"{}\", key = \"{}\"",
            path("pem").display(),
            path("key").display()
        )
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// Its serial number, as it stands in it.
    pub(crate) fn serial(&self) -> Vec<u8> {
        let der = self.der();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        parsed.raw_serial().to_vec()
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// Puts a file in the place of another, whole.
pub(crate) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// How a client speaks TLS.
#[derive(Clone)]
pub(crate) struct Manner {
    authority: String,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    shown: Option<Issued>,
}

impl Manner {
    /// Trusts this authority alone, by its PEM.
    pub(crate) fn trusting(authority: &str) -> Manner {
        Manner {
            authority: authority.to_owned(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            protocols: Vec::new(),
            shown: None,
        }
    }

    /// Only this version.
    pub(crate) fn only(mut self, version: &'static SupportedProtocolVersion) -> Manner {
        self.versions = vec![version];
        self
    }

    /// Offers these protocols by ALPN.
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Manner {
        self.protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Shows a certificate, if it is asked for one.
    pub(crate) fn showing(mut self, shown: &Issued) -> Manner {
        self.shown = Some(shown.clone());
        self
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder
                .with_client_auth_cert(vec![shown.der()], shown.private())
                .unwrap(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        Arc::new(config)
    }
}

/// A file of `conf`, with certificates for those that it names, and a key that seals; they are gone with the folder.
pub(crate) fn load_example(file: &Path) -> (tempfile::TempDir, Result<Loaded, Diagnostics>) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut text = text.replace(
        "${TOLLGATE_ACME_KEY}",
        "a-key-that-seals-in-an-example-only",
    );
    let authority = Authority::new("an authority");
    for (name, host) in [
        ("research", "research.example.com"),
        ("agents", "agents.example.com"),
    ] {
        authority.issue(&[host]).write(folder.path(), name);
    }
    for name in ["clients.pem", "engines.pem", "directory.pem"] {
        authority.write(folder.path(), name);
    }
    for made in std::fs::read_dir(folder.path()).unwrap() {
        let made = made.unwrap();
        let name = made.file_name().into_string().unwrap();
        let path = made.path().display().to_string();
        text = text.replace(&format!("\"{name}\""), &format!("\"{path}\""));
    }
    let copy = folder.path().join(file.file_name().unwrap());
    std::fs::write(&copy, text).unwrap();
    let loaded = config::load(&copy);
    (folder, loaded)
}
