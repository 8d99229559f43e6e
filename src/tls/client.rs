//! What is shown to targets, and who may vouch for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use pingora_core::protocols::Digest as Connected;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora_core::{Error, ErrorType, Result as OfPingora};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::pem::{self, Pair, Part, ReadPem, Wrong};
use super::revoked::Revoked;
use crate::model::UpstreamTls;

/// The files of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientFiles {
    /// Who may vouch for targets; the system's authorities if not given.
    pub authorities: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// The lists of certificates that no target may show.
    pub revoked: Option<PathBuf>,
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
            revoked: tls.crl.as_ref().map(|crl| crl.0.clone()),
        };
        let Self {
            authorities,
            pair,
            revoked,
        } = &files;
        let any = authorities.is_some() || pair.is_some() || revoked.is_some();
        any.then_some(files)
    }

    /// Reads them; what is doubtful in them, though they can be used.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn check(&self, read: &ReadPem<'_>) -> Result<Option<Wrong>, Vec<Wrong>> {
        let presented = Presented::of(self, read)?;
        Ok(presented.overdue(SystemTime::now()))
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
    revoked: Option<Revoked>,
    /// It was told that a list is overdue.
    told: AtomicBool,
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

    /// Whether what a target showed in its handshake is still believed. Asked before each request, since a connection is older than its lists may be.
    ///
    /// # Errors
    /// [`ErrorType::InvalidCert`], as of a handshake that failed: the connection must not be used.
    pub fn admit(&self, peer: &HttpPeer, connected: Option<&Connected>) -> OfPingora<()> {
        if self.files.revoked.is_none() || !peer.is_tls() {
            return Ok(());
        }
        let presented = self.presented.load();
        let revoked = presented.as_ref().and_then(|p| p.revoked.as_ref());
        let shown = connected.and_then(|connected| connected.ssl_digest.as_ref());
        let serial = shown.and_then(|shown| shown.serial_number.as_deref());
        let of = peer.address();
        let why = match (revoked, serial) {
            (Some(revoked), Some(serial)) if !revoked.names(serial) => return Ok(()),
            (Some(_), Some(serial)) => {
                format!("the certificate of {of} (serial {serial}) is revoked")
            }
            _ => format!("it is not known whether the certificate of {of} is revoked"),
        };
        Error::e_explain(ErrorType::InvalidCert, why)
    }

    /// What is to be told of a list that should have been replaced: once for each version of the files.
    pub(super) fn overdue(&self) -> Option<Wrong> {
        let presented = self.presented.load();
        let presented = presented.as_ref()?;
        let overdue = presented.overdue(SystemTime::now())?;
        (!presented.told.swap(true, Ordering::Relaxed)).then_some(overdue)
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
        let signers = authorities.as_ref().ok().and_then(Option::as_deref);
        let revoked = files.revoked.as_ref();
        let revoked = revoked.map(|path| Revoked::read(read(path), signers));
        match (authorities, pair.transpose(), revoked.transpose()) {
            (Ok(authorities), Ok(pair), Ok(revoked)) => {
                Self::made(authorities.as_deref(), pair.as_ref(), revoked)
            }
            (authorities, pair, revoked) => {
                let mut wrong = pair.err().unwrap_or_default();
                wrong.extend(authorities.err());
                wrong.extend(revoked.err().unwrap_or_default());
                Err(wrong)
            }
        }
    }

    /// What was read, as Pingora takes it. It has been parsed once by then, so that Pingora, which panics on what cannot be, does not.
    fn made(
        authorities: Option<&[CertificateDer<'static>]>,
        pair: Option<&Pair>,
        revoked: Option<Revoked>,
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
        if let Some(revoked) = &revoked {
            digest.update(b"r");
            digest.update(revoked.digest());
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
            revoked,
            told: AtomicBool::new(false),
            digest: digest.finalize().into(),
        })
    }

    fn overdue(&self, now: SystemTime) -> Option<Wrong> {
        self.revoked.as_ref()?.overdue(now)
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
