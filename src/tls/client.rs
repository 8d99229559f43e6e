//! What is shown to targets, and who may vouch for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::pem::{self, Pair, Part, ReadPem, Wrong};
use crate::model::UpstreamTls;

/// The files of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientFiles {
    /// Who may vouch for targets; the system's authorities if not given.
    pub authorities: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    /// Those of an upstream, if it has any.
    pub fn of(tls: &UpstreamTls) -> Option<Self> {
        let files = Self {
            authorities: tls.ca.as_ref().map(|ca| ca.0.clone()),
            pair: match (&tls.certificate, &tls.key) {
                (Some(certificate), Some(key)) => Some((certificate.0.clone(), key.0.clone())),
                _ => None,
            },
        };
        (files.authorities.is_some() || files.pair.is_some()).then_some(files)
    }

    /// Reads them.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn check(&self, read: &ReadPem<'_>) -> Result<(), Vec<Wrong>> {
        Presented::of(self, read).map(drop)
    }
}

/// The files could not be read: without them it is not known whom to trust, or who to be.
#[derive(Clone, Copy, Debug)]
pub struct Uncertain;

/// What a connection to a target takes with it, as the files have it now. One handle stands for the same files in all revisions.
pub struct Credentials {
    files: ClientFiles,
    presented: ArcSwapOption<Presented>,
}

struct Presented {
    authorities: Option<Arc<CaType>>,
    pair: Option<Arc<CertKey>>,
    digest: [u8; 32],
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credentials").field(&self.files).finish()
    }
}

/// There is one handle for the same files.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Credentials {
    pub(super) fn new(files: ClientFiles) -> Self {
        Self {
            files,
            presented: ArcSwapOption::empty(),
        }
    }

    /// Where they come from.
    pub fn files(&self) -> &ClientFiles {
        &self.files
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.presented.load().is_some()
    }

    /// Makes a connection to this peer use them. Kept connections of peers with others are not its own.
    ///
    /// # Errors
    /// [`Uncertain`]: the peer must not be connected to.
    pub fn apply(&self, peer: &mut HttpPeer) -> Result<(), Uncertain> {
        let presented = self.presented.load();
        let presented = presented.as_ref().ok_or(Uncertain)?;
        peer.options.ca.clone_from(&presented.authorities);
        peer.client_cert_key.clone_from(&presented.pair);
        let (first, _) = presented.digest.split_first_chunk().ok_or(Uncertain)?;
        peer.group_key = u64::from_be_bytes(*first);
        Ok(())
    }

    /// Reads the files; whether what they hold is new. With a mistake nothing changes.
    pub(super) fn load(&self, read: &ReadPem<'_>) -> Result<bool, Vec<Wrong>> {
        let presented = Presented::of(&self.files, read)?;
        let known = self.presented.load();
        if known
            .as_ref()
            .is_some_and(|known| known.digest == presented.digest)
        {
            return Ok(false);
        }
        self.presented.store(Some(Arc::new(presented)));
        Ok(true)
    }
}

impl Presented {
    fn of(files: &ClientFiles, read: &ReadPem<'_>) -> Result<Self, Vec<Wrong>> {
        let authorities = files.authorities.as_ref();
        let authorities = authorities.map(|path| trusted(path, read)).transpose();
        let pair = files.pair.as_ref().map(|(certificate, key)| {
            pem::pair(read(certificate), read(key), &ring::default_provider())
        });
        match (authorities, pair.transpose()) {
            (Ok(authorities), Ok(pair)) => Self::made(authorities.as_deref(), pair.as_ref()),
            (authorities, pair) => {
                let mut wrong = pair.err().unwrap_or_default();
                wrong.extend(authorities.err());
                Err(wrong)
            }
        }
    }

    /// What was read, as Pingora takes it. It has been parsed once by then, so that Pingora, which panics on what cannot be, does not.
    fn made(
        authorities: Option<&[CertificateDer<'static>]>,
        pair: Option<&Pair>,
    ) -> Result<Self, Vec<Wrong>> {
        let chain = pair.map_or(&[][..], |pair| &pair.certified.cert);
        let mut digest = Sha256::new();
        for (kind, list) in [(b"a", authorities.unwrap_or_default()), (b"c", chain)] {
            for certificate in list {
                digest.update(kind);
                digest.update(certificate.len().to_be_bytes());
                digest.update(certificate);
            }
        }
        if let Some(pair) = pair
            && PrivateKeyDer::try_from(pair.key.secret_der()).is_err()
        {
            let help = "write it as PKCS #8: openssl pkcs8 -topk8 -nodes -in FILE -out FILE";
            let message = "the key is in a form that is not supported here";
            return Err(vec![Wrong::new(Part::Key, message, help)]);
        }
        let wrapped = |certificate: &CertificateDer<'_>| {
            WrappedX509::new(certificate.as_ref().to_vec(), parse_x509)
        };
        Ok(Self {
            authorities: authorities.map(|all| all.iter().map(wrapped).collect()),
            pair: pair.map(|pair| {
                let chain = chain.iter().map(|c| c.as_ref().to_vec()).collect();
                Arc::new(CertKey::new(chain, pair.key.secret_der().to_vec()))
            }),
            digest: digest.finalize().into(),
        })
    }
}

fn trusted(path: &Path, read: &ReadPem<'_>) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let (chain, _) = pem::chain(read(path), Part::Authorities)?;
    let mut roots = RootCertStore::empty();
    for authority in &chain {
        roots.add(authority.clone()).map_err(|_| {
            let help = "name the certificates of authorities (CA:TRUE) there";
            let message = "nobody can vouch with a certificate in the file";
            Wrong::new(Part::Authorities, message, help)
        })?;
    }
    Ok(chain)
}
