//! What is shown to clients: a certificate, and how handshakes with it go.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tollgate_sdk::secret::Secret;

use super::issued::Issued;
use super::pem::{self, Leaf, Part, ReadPem, Wrong};
use crate::model::{
    Certificate, CertificateFiles, ClientCertificate, Gateway, Listener, ListenerTls,
};

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From files.
    Files {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// It is ordered for the gateway of this name.
    Ordered(Arc<str>),
}

/// What an identity is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerFiles {
    /// Where its certificate comes from.
    pub origin: Origin,
    /// Who vouches for clients, and whether they must show a certificate.
    pub clients: Option<(PathBuf, bool)>,
}

impl ServerFiles {
    /// Those of a gateway, if it has any.
    pub fn of_gateway(gateway: &Gateway) -> Option<Self> {
        let origin = match &gateway.certificate {
            Certificate::None => return None,
            Certificate::Ordered => Origin::Ordered(gateway.name.clone().into()),
            Certificate::Files(files) => Self::of(files).origin,
        };
        let required = gateway.client_certificate == ClientCertificate::Required;
        let clients = gateway.client_ca.as_ref();
        Some(Self {
            clients: clients.map(|ca| (ca.0.clone(), required)),
            origin,
        })
    }

    /// Those of a listener, if it has any of its own.
    pub fn of_listener(listener: &Listener) -> Option<Self> {
        match &listener.tls {
            Some(ListenerTls::Files(files)) => Some(Self::of(files)),
            Some(ListenerTls::Auto) | None => None,
        }
    }

    fn of(files: &CertificateFiles) -> Self {
        Self {
            origin: Origin::Files {
                certificate: files.certificate.0.clone(),
                key: files.key.0.clone(),
            },
            clients: None,
        }
    }

    /// Reads them; what the certificate says, if it is in a file.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn check(&self, read: &ReadPem<'_>) -> Result<Option<Leaf>, Vec<Wrong>> {
        match (&self.origin, &self.clients) {
            (Origin::Files { .. }, _) => {
                Served::of(self, read, None).map(|served| served.map(|served| served.leaf))
            }
            (Origin::Ordered(_), None) => Ok(None),
            (Origin::Ordered(_), Some((path, required))) => {
                let provider = Arc::new(ring::default_provider());
                let verifier = verifier(read(path), *required, &provider);
                verifier.map(|_| None).map_err(|wrong| vec![wrong])
            }
        }
    }
}

/// How handshakes go now.
pub(super) struct Served {
    /// With HTTP/2 on offer.
    pub(super) any: Arc<ServerConfig>,
    /// Without.
    pub(super) http1: Arc<ServerConfig>,
    leaf: Leaf,
    /// What was read.
    digest: [u8; 32],
}

/// A certificate that is shown to clients, as its files have it now. One handle stands for the same files in all revisions.
pub struct Identity {
    files: ServerFiles,
    served: ArcSwapOption<Served>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.files).finish()
    }
}

impl Identity {
    pub(super) fn new(files: ServerFiles) -> Self {
        Self {
            files,
            served: ArcSwapOption::empty(),
        }
    }

    /// Where it comes from.
    pub fn files(&self) -> &ServerFiles {
        &self.files
    }

    /// What the certificate says; `None` while its files could not be read.
    pub fn leaf(&self) -> Option<Leaf> {
        self.served
            .load()
            .as_ref()
            .map(|served| served.leaf.clone())
    }

    /// Whether there is anything to show.
    pub fn is_loaded(&self) -> bool {
        self.served.load().is_some()
    }

    /// Shows nothing from now on.
    pub(super) fn empty(&self) {
        self.served.store(None);
    }

    /// How a handshake goes now.
    pub(super) fn config(&self, http2: bool) -> Option<Arc<ServerConfig>> {
        let served = self.served.load();
        let served = served.as_ref()?;
        Some(match http2 {
            true => served.any.clone(),
            false => served.http1.clone(),
        })
    }

    /// Reads the files, or takes what was issued; whether that is new. With a mistake nothing changes, nor while nothing has been issued.
    pub(super) fn load(
        &self,
        read: &ReadPem<'_>,
        issued: Option<&Issued>,
    ) -> Result<bool, Vec<Wrong>> {
        let Some(served) = Served::of(&self.files, read, issued)? else {
            return Ok(false);
        };
        let known = self.served.load();
        if known
            .as_ref()
            .is_some_and(|known| known.digest == served.digest)
        {
            return Ok(false);
        }
        self.served.store(Some(Arc::new(served)));
        Ok(true)
    }
}

impl Served {
    /// `None`: it is ordered, and has not been issued yet.
    fn of(
        files: &ServerFiles,
        read: &ReadPem<'_>,
        issued: Option<&Issued>,
    ) -> Result<Option<Self>, Vec<Wrong>> {
        let provider = Arc::new(ring::default_provider());
        let mut digest = Sha256::new();
        let mut noted = |text: Result<Secret<String>, String>| {
            let text = text?;
            digest.update(text.expose().len().to_be_bytes());
            digest.update(text.expose());
            Ok(text)
        };
        let (certificate, key) = match (&files.origin, issued) {
            (Origin::Files { certificate, key }, _) => (read(certificate), read(key)),
            (Origin::Ordered(_), None) => return Ok(None),
            (Origin::Ordered(_), Some(issued)) => {
                let certificate = Secret::new(issued.certificate().to_owned());
                (Ok(certificate), Ok(issued.key().clone()))
            }
        };
        let pair = pem::pair(noted(certificate), noted(key), &provider);
        let clients = match &files.clients {
            None => Ok(WebPkiClientVerifier::no_client_auth()),
            Some((path, required)) => verifier(noted(read(path)), *required, &provider),
        };
        let (pair, clients) = match (pair, clients) {
            (Ok(pair), Ok(clients)) => (pair, clients),
            (pair, clients) => {
                let mut wrong = pair.err().unwrap_or_default();
                wrong.extend(clients.err());
                return Err(wrong);
            }
        };
        let unusable = |_| {
            let help = "use a certificate and a key of a usual kind";
            vec![Wrong::new(
                Part::Certificate,
                "TLS cannot be spoken with it",
                help,
            )]
        };
        let mut http1 = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified)));
        // Tickets of its own: one that another identity gave out must not open this, which may ask for client certificates. The keys change every six hours.
        http1.ticketer = Ticketer::new().map_err(unusable)?;
        // Of TLS 1.2 suites the strongest that both know, whatever the client likes best.
        http1.ignore_client_order = true;
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = http1.clone();
        any.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Some(Self {
            any: Arc::new(any),
            http1: Arc::new(http1),
            leaf: pair.leaf,
            digest: digest.finalize().into(),
        }))
    }
}

fn verifier(
    text: Result<Secret<String>, String>,
    required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let (authorities, _) = pem::chain(text, Part::Authorities)?;
    let unusable = || {
        let help = "name the certificates of authorities (CA:TRUE) there";
        Wrong::new(
            Part::Authorities,
            "nobody can vouch with a certificate in the file",
            help,
        )
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|_| unusable())?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if !required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|_| unusable())?;
    Ok(verifier)
}
