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

use super::pem::{self, Leaf, Part, ReadPem, Wrong};
use crate::model::{
    Certificate, CertificateFiles, ClientCertificate, Gateway, Listener, ListenerTls,
};

/// The files of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who vouches for clients, and whether they must show a certificate.
    pub clients: Option<(PathBuf, bool)>,
}

impl ServerFiles {
    /// Those of a gateway, if it has any.
    pub fn of_gateway(gateway: &Gateway) -> Option<Self> {
        let Certificate::Files(files) = &gateway.certificate else {
            return None;
        };
        let required = gateway.client_certificate == ClientCertificate::Required;
        let clients = gateway.client_ca.as_ref();
        Some(Self {
            clients: clients.map(|ca| (ca.0.clone(), required)),
            ..Self::of(files)
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
            certificate: files.certificate.0.clone(),
            key: files.key.0.clone(),
            clients: None,
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn check(&self, read: &ReadPem<'_>) -> Result<Leaf, Vec<Wrong>> {
        Served::of(self, read).map(|served| served.leaf)
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

    pub(super) fn is_loaded(&self) -> bool {
        self.served.load().is_some()
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

    /// Reads the files; whether what they hold is new. With a mistake nothing changes.
    pub(super) fn load(&self, read: &ReadPem<'_>) -> Result<bool, Vec<Wrong>> {
        let served = Served::of(&self.files, read)?;
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
    fn of(files: &ServerFiles, read: &ReadPem<'_>) -> Result<Self, Vec<Wrong>> {
        let provider = Arc::new(ring::default_provider());
        let mut digest = Sha256::new();
        let mut noted = |path: &PathBuf| {
            let text = read(path)?;
            digest.update(text.expose().len().to_be_bytes());
            digest.update(text.expose());
            Ok(text)
        };
        let pair = pem::pair(noted(&files.certificate), noted(&files.key), &provider);
        let clients = match &files.clients {
            None => Ok(WebPkiClientVerifier::no_client_auth()),
            Some((path, required)) => verifier(noted(path), *required, &provider),
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
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = http1.clone();
        any.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            any: Arc::new(any),
            http1: Arc::new(http1),
            leaf: pair.leaf,
            digest: digest.finalize().into(),
        })
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
